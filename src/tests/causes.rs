//! Each slow poll is counted under one cause, and under none before it is decided.

use std::panic::Location;
use std::sync::mpsc;

use super::*;
use crate::report::Cause;
use crate::report::{SectionKind, ThreadInfo};
use crate::slot::{Diagnosis, ReportState};
use crate::watch::{Counted, EndDiagnosis, Overrun};

fn watchdog() -> Watchdog {
    Watchdog::builder().without_tracing().build().unwrap()
}

/// Ends a slow poll with a diagnosis.
fn slow_poll(watch: &Watch, diagnosis: EndDiagnosis) {
    let counted = Counted {
        is_poll: true,
        slow: true,
        ..Counted::default()
    };
    watch
        .counters()
        .count_rarely(crate::slot::current(), counted);
    let poll = Overrun {
        kind: SectionKind::Poll,
        elapsed_nanos: 1,
        charged_nanos: 1,
        budget: MS,
        location: Location::caller(),
        outer_watches: Vec::new(),
        thread: ThreadInfo::current(),
        slot: None,
        seq: None,
        is_slow: true,
        is_allowed: false,
        exceeded_allowance: None,
    };
    let watchdog = watch.watchdog();
    watchdog
        .sink
        .on_slow_poll(watch.counters(), poll, ReportState::Unreported, diagnosis);
}

fn found(cause: Cause) -> Diagnosis {
    Diagnosis {
        cause,
        ..Diagnosis::default()
    }
}

/// Returns the number of slow polls, and those by cause.
fn counts(watch: &Watch) -> (u64, [u64; 5]) {
    let totals = watch.counters().totals();
    (totals.slow, totals.slow_by_cause().map(|(_, count)| count))
}

#[test]
fn slow_poll_diagnosed_later_has_no_cause_before() {
    let watchdog = watchdog();
    let watch = watchdog.watch("later");
    let (tell, told) = mpsc::channel();
    let before = watch.clone();
    slow_poll(
        &watch,
        EndDiagnosis::Later(Box::new(move || {
            tell.send(counts(&before)).unwrap();
            found(Cause::Blocked(Default::default()))
        })),
    );
    assert_eq!(told.recv_timeout(MAX_WAIT).unwrap(), (1, [0; 5]));
    assert!(watchdog.flush(MAX_WAIT));
    assert_eq!(counts(&watch), (1, [0, 1, 0, 0, 0]));
}

#[test]
fn slow_poll_with_a_panic_in_its_diagnosis_is_unknown() {
    let watchdog = watchdog();
    let watch = watchdog.watch("panics");
    slow_poll(
        &watch,
        EndDiagnosis::Later(Box::new(|| panic!("on purpose"))),
    );
    assert!(watchdog.flush(MAX_WAIT));
    assert_eq!(counts(&watch), (1, [0, 0, 0, 0, 1]));
}

#[test]
fn slow_poll_on_a_reporters_thread_is_unknown() {
    let own = Arc::<Mutex<Option<Watch>>>::default();
    let its_own = Arc::clone(&own);
    let builder = Watchdog::builder().without_tracing();
    let builder = builder.on_slow_poll(move |_: &SlowPoll| {
        if let Some(watch) = its_own.lock().unwrap().take() {
            slow_poll(&watch, EndDiagnosis::Now(found(Cause::Computing)));
        }
    });
    let watchdog = builder.build().unwrap();
    let (outer, inner) = (watchdog.watch("outer"), watchdog.watch("inner"));
    *own.lock().unwrap() = Some(inner.clone());
    slow_poll(&outer, EndDiagnosis::Now(found(Cause::Computing)));
    assert!(watchdog.flush(MAX_WAIT));
    assert_eq!(counts(&outer), (1, [1, 0, 0, 0, 0]));
    assert_eq!(counts(&inner), (1, [0, 0, 0, 0, 1]));
}

/// A recorder keeps the largest value of each series.
#[cfg(feature = "metrics")]
#[test]
fn sum_over_causes_never_exceeds_the_slow_polls() {
    const THREADS: u64 = 4;
    const POLLS: u64 = 200;
    let name = "causes: under load";
    let watchdog = watchdog();
    let watch = watchdog.watch(name);
    let published = || {
        let sums = crate::watch::aggregate();
        let totals = &sums.watches[name].totals;
        (totals.slow, totals.slow_by_cause().map(|(_, count)| count))
    };
    let mut largest = [0; 5];
    let mut look = || {
        let (slow, by_cause) = published();
        for (largest, count) in largest.iter_mut().zip(by_cause) {
            assert!(count >= *largest, "a counter went back");
            *largest = count;
        }
        let sum: u64 = by_cause.iter().sum();
        assert!(sum <= slow, "{sum} of {slow}");
        sum
    };
    std::thread::scope(|scope| {
        let make = || {
            for number in 0..POLLS {
                let diagnosis = match number % 3 {
                    0 => EndDiagnosis::Now(found(Cause::Computing)),
                    1 => EndDiagnosis::Now(found(Cause::Unknown)),
                    _ => EndDiagnosis::Later(Box::new(|| found(Cause::Starved))),
                };
                slow_poll(&watch, diagnosis);
            }
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(make)).collect();
        while !threads.iter().all(|thread| thread.is_finished()) {
            look();
        }
    });
    // The watchdog ends while some of its polls may have no diagnosis yet.
    let counters = Arc::downgrade(watch.counters());
    drop((watch, watchdog));
    while counters.strong_count() > 0 || look() < THREADS * POLLS {
        std::thread::yield_now();
    }
    let (slow, by_cause) = published();
    assert_eq!((slow, by_cause.iter().sum()), (THREADS * POLLS, slow));
    // The values of a recorder that keeps the largest ones.
    assert_eq!(largest.iter().sum::<u64>(), slow);
}

//! Ticked polls: their exact numbers, and their estimates.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use shotclock::{Cause, Phase, SlowPoll, Timing, Watch, WatchExt as _, Watchdog};

const BUDGET: Duration = Duration::from_millis(10);

fn watchdog(timing: Timing) -> Watchdog {
    let builder = Watchdog::builder().without_tracing().budget(BUDGET);
    builder.timing(timing).build().unwrap()
}

fn poll<T>(future: impl Future<Output = T>) {
    let _ = pin!(future).poll(&mut Context::from_waker(Waker::noop()));
}

/// Makes one poll of this work.
fn once<T>(watch: &Watch, mut work: impl FnMut() -> T) {
    poll(poll_fn(|_| Poll::Ready(work())).watched(watch));
}

fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

#[test]
fn ticked_poll_count_is_exact() {
    const POLLS: u64 = 200_000;
    let watchdog = watchdog(Timing::Ticked);
    // A destructor of a starved thread would count as a slow poll.
    let watch = watchdog
        .watch("counted")
        .with_budget(Duration::from_secs(3_600));
    thread::scope(|scope| {
        let polling = || (0..POLLS).for_each(|poll| once(&watch, || poll));
        let threads = [(); 3].map(|()| scope.spawn(polling));
        let mut before = 0;
        while threads.iter().any(|thread| !thread.is_finished()) {
            let now = watch.stats().polls;
            assert!(now >= before && now <= 3 * POLLS, "{before} {now}");
            before = now;
        }
    });
    let stats = watch.stats();
    assert_eq!((stats.polls, stats.in_flight), (3 * POLLS, 0));
    let cells: u64 = stats.histogram().map(|(_, polls)| polls).sum();
    assert_eq!(cells, 3 * POLLS);
    assert!(stats.busy > Duration::ZERO && stats.longest > Duration::ZERO);
}

#[test]
fn ticked_poll_that_panics_is_counted() {
    let watchdog = watchdog(Timing::Ticked);
    let watch = watchdog.watch("panics");
    for _ in 0..100 {
        once(&watch, || ());
        let panic = || once(&watch, || std::panic::resume_unwind(Box::new(())));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panic)).is_err());
    }
    let stats = watch.stats();
    assert_eq!((stats.polls, stats.panicked_polls), (200, 100));
}

#[test]
fn ticked_stall_is_reported_twice() {
    let (tx, reports) = mpsc::channel();
    let builder = Watchdog::builder().without_tracing().budget(BUDGET);
    let watchdog = builder
        .timing(Timing::Ticked)
        .on_slow_poll(move |slow: &SlowPoll| drop(tx.send(slow.clone())))
        .build()
        .unwrap();
    let watch = watchdog.watch("stuck");
    // The next poll is not a sample.
    for _ in 0..1_000 {
        once(&watch, || ());
    }
    let began = Instant::now();
    let mut running = None;
    once(&watch, || {
        let waits = || thread::sleep(Duration::from_millis(1));
        running = std::iter::repeat_with(|| reports.try_recv().ok())
            .inspect(|_| waits())
            .find_map(|report| report);
    });
    let (running, took): (SlowPoll, _) = (running.unwrap(), began.elapsed());
    assert_eq!((running.phase, &*running.watch), (Phase::Running, "stuck"));
    assert!(
        running.charged > BUDGET && running.elapsed < took,
        "{running}"
    );

    assert!(watchdog.flush(Duration::from_secs(60)));
    let ended = reports.try_iter().last().unwrap();
    assert_eq!((ended.id, ended.phase), (running.id, Phase::Finished));
    // At least this long, and never more than it took.
    assert!(running.elapsed <= ended.elapsed && ended.elapsed <= took);
    assert!(matches!(ended.cause, Cause::Blocked(_)), "{ended}");
    assert_eq!((watch.stats().slow_polls, watch.stats().polls), (1, 1_001));
    let slowest = watch.stats().histogram().last().unwrap();
    assert!(slowest.0 >= Some(BUDGET) && slowest.1 == 1, "{slowest:?}");
}

/// Late ticks must not charge a poll.
#[test]
fn ticked_poll_within_its_budget_is_never_slow() {
    let watchdog = watchdog(Timing::Ticked);
    let watch = watchdog.watch("within");
    let (mut longer, mut within) = (0, 0);
    for round in 0..200 {
        let began = Instant::now();
        once(&watch, || spin(Duration::from_micros(5_000 + 24 * round)));
        match began.elapsed() > BUDGET {
            true => longer += 1,
            false => within += 1,
        }
        assert!(watch.stats().slow_polls <= longer);
    }
    assert_eq!(watch.stats().polls, longer + within);
}

/// Twenty polls inside one. Their parts of the time are estimates, which add up.
#[test]
fn ticked_self_time_leaves_out_inner_polls() {
    let parts = |timing| {
        let watchdog = watchdog(timing);
        let (outer, inner) = (watchdog.watch("outer"), watchdog.watch("inner"));
        for _ in 0..1_000 {
            once(&outer, || {
                spin(Duration::from_micros(20));
                (0..20).for_each(|_| once(&inner, || spin(Duration::from_micros(10))));
            });
        }
        assert_eq!((outer.stats().polls, inner.stats().polls), (1_000, 20_000));
        [outer, inner].map(|watch| watch.stats().busy.as_secs_f64())
    };
    // A sample that the host has interrupted weighs much.
    let is_near = |ratio: f64| (0.75..1.33).contains(&ratio);
    let is_well = (0..50).any(|_| {
        let ([outer, inner], exact) = (parts(Timing::Ticked), parts(Timing::Exact));
        is_near(outer / exact[0]) && is_near(inner / exact[1])
    });
    assert!(is_well);
}

/// The histogram has the shape of the exact one.
#[test]
fn ticked_histogram_is_unbiased() {
    const POLLS: u64 = 20_000;
    let share_of_long = |timing| {
        let watchdog = watchdog(timing);
        let watch = watchdog.watch("two kinds");
        for number in 0..POLLS {
            // One poll in eight takes longer.
            let time = if number % 8 == 0 { 60 } else { 2 };
            once(&watch, || spin(Duration::from_micros(time)));
        }
        let bound = Duration::from_micros(50);
        let stats = watch.stats();
        let long = stats
            .histogram()
            .filter(|(to, _)| *to > Some(bound) || to.is_none());
        long.map(|(_, polls)| polls).sum::<u64>() as f64 / POLLS as f64
    };
    assert!(share_of_long(Timing::Exact) >= 0.125);
    // About 310 samples, so a share of an eighth has a deviation of 0.019. The number of polls for which a sample stands
    // is random too.
    let is_fair = (0..20).any(|_| (0.09..0.16).contains(&share_of_long(Timing::Ticked)));
    assert!(is_fair);
}

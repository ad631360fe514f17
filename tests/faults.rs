//! Threads and subscribers in states that could block a watchdog. They do not, and every poll is counted.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shotclock::{Phase, SlowPoll, Status, WatchExt as _, Watchdog, WatchdogBuilder};
use tracing::Dispatch;
use tracing::span::{Attributes, Id, Record};

const PATIENCE: Duration = Duration::from_secs(60);

fn watchdog(
    set_up: impl FnOnce(WatchdogBuilder) -> WatchdogBuilder,
) -> (Watchdog, Receiver<SlowPoll>) {
    let (tx, reports) = mpsc::channel();
    let report = move |slow: &SlowPoll| drop(tx.send(slow.clone()));
    let builder = Watchdog::builder().on_slow_poll(report);
    let builder = builder.reports_per_second(u32::MAX);
    (set_up(builder).build().unwrap(), reports)
}

/// Returns the first report for which `wanted` is true.
fn next(reports: &Receiver<SlowPoll>, is_it: impl Fn(&SlowPoll) -> bool) -> SlowPoll {
    loop {
        let slow = reports.recv_timeout(PATIENCE).unwrap();
        if is_it(&slow) {
            return slow;
        }
    }
}

/// A subscriber that takes a lock for each event, and counts the events.
struct Locks(Arc<Mutex<u32>>);

impl tracing::Subscriber for Locks {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        *self.0.lock().unwrap() += 1;
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// State: its reporter waits, the other reporters get all reports, the watchdog answers, and no report is lost.
#[test]
fn subscriber_blocked_by_the_stuck_thread_delays_no_other_reporter() {
    let lock = Arc::<Mutex<u32>>::default();
    let subscriber = Dispatch::new(Locks(Arc::clone(&lock)));
    let (watchdog, reports) = tracing::dispatcher::with_default(&subscriber, || watchdog(|b| b));
    let watch = watchdog.watch("holds the lock");
    let (release, held) = mpsc::channel::<()>();
    let stuck = std::thread::spawn({
        let lock = Arc::clone(&lock);
        move || {
            let _poll = watch.enter();
            let _locked = lock.lock().unwrap();
            let _ = held.recv();
        }
    });
    let running = next(&reports, |slow| slow.phase == Phase::Running);
    // The poll has three reports while it runs. Its first event waits in the subscriber by then.
    for _ in 0..2 {
        next(&reports, |slow| slow.id == running.id);
    }
    assert!(!watchdog.flush(Duration::ZERO), "one reporter is blocked");
    assert_eq!(watchdog.health().status, Status::Stalled);
    // Other polls continue, and the other reporter gets their reports.
    let other = watchdog.watch("other").with_budget(Duration::from_nanos(1));
    drop(other.enter());
    next(&reports, |slow| &*slow.watch == "other");
    watchdog.publish_metrics();
    drop(release);
    stuck.join().unwrap();
    let finished = next(&reports, |slow| {
        slow.phase == Phase::Finished && slow.id == running.id
    });
    assert_eq!(&*finished.watch, "holds the lock");
    assert!(watchdog.flush(PATIENCE));
    // At least three reports of the stuck poll while it ran, one of its end, and one of the other poll.
    let events = *lock.lock().unwrap();
    assert!(events >= 5, "{events}");
    assert_eq!(watchdog.watch("holds the lock").stats().slow_polls, 1);
}

/// State: the stall and its end are reported, and the poll counts as slow and as panicked.
#[test]
fn thread_that_panics_in_a_stall_has_a_last_report() {
    const THREADS: u64 = 8;
    let (watchdog, reports) = watchdog(WatchdogBuilder::without_tracing);
    let watch = watchdog.watch("panics");
    for _ in 0..THREADS {
        let (watch, (go_on, waits)) = (watch.clone(), mpsc::channel::<()>());
        let thread = std::thread::spawn(move || {
            futures::executor::block_on(
                async move {
                    let _ = waits.recv();
                    std::panic::resume_unwind(Box::new("without the hook"))
                }
                .watched(&watch),
            )
        });
        let running = next(&reports, |slow| slow.phase == Phase::Running);
        drop(go_on);
        let panicked: Result<(), _> = thread.join();
        assert!(panicked.is_err());
        next(&reports, |slow| {
            slow.phase == Phase::Finished && slow.id == running.id
        });
    }
    let stats = watch.stats();
    assert_eq!((stats.polls, stats.slow_polls), (THREADS, THREADS));
    assert_eq!((stats.panicked_polls, stats.in_flight), (THREADS, 0));
    assert_eq!(watchdog.health().status, Status::Responsive);
}

/// State: the stall of a leaked guard ends with its thread.
#[test]
fn thread_that_ends_with_a_leaked_guard_leaves_no_stall() {
    let (watchdog, reports) = watchdog(WatchdogBuilder::without_tracing);
    let watch = watchdog.watch("forgotten");
    let thread = {
        let watch: &'static _ = Box::leak(Box::new(watch.clone()));
        let (go_on, waits) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            std::mem::forget(shotclock::Watch::enter(watch));
            let _ = waits.recv();
        });
        next(&reports, |slow| slow.phase == Phase::Running);
        drop(go_on);
        thread
    };
    thread.join().unwrap();
    assert_eq!(watchdog.health().status, Status::Responsive);
    assert_eq!(watch.stats().in_flight, 0);
    // The next thread with that slot starts without polls.
    let again = watch.clone();
    std::thread::spawn(move || drop(again.enter()))
        .join()
        .unwrap();
    assert_eq!((watch.stats().polls, watch.stats().in_flight), (1, 0));
}

/// State: the runtime ends without the stuck worker. The poll is reported and counted to its end.
#[test]
fn runtime_dropped_in_a_stall_loses_no_poll() {
    let (watchdog, reports) = watchdog(WatchdogBuilder::without_tracing);
    let watch = watchdog.watch("outlives its runtime");
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().unwrap();
    let guard = watchdog.guard("ends in a stall", runtime.handle());
    let (go_on, waits) = mpsc::channel::<()>();
    let stuck = runtime.spawn(
        async move {
            let _ = waits.recv();
        }
        .watched(&watch),
    );
    let running = next(&reports, |slow| slow.phase == Phase::Running);
    runtime.shutdown_background();
    // The sentinel still observes it.
    next(&reports, |slow| slow.elapsed > 2 * running.elapsed);
    assert_eq!(watchdog.health().status, Status::Stalled);
    drop((guard, stuck));
    drop(go_on);
    next(&reports, |slow| {
        slow.phase == Phase::Finished && slow.id == running.id
    });
    let stats = watch.stats();
    assert_eq!((stats.polls, stats.slow_polls, stats.in_flight), (1, 1, 0));
}

/// State: metrics are summed by name, and each watchdog reports to its own reporters.
#[test]
fn two_watchdogs_report_separately() {
    let (first, of_first) = watchdog(WatchdogBuilder::without_tracing);
    let (second, of_second) = watchdog(WatchdogBuilder::without_tracing);
    for (watchdog, own, others) in [
        (&first, &of_first, &of_second),
        (&second, &of_second, &of_first),
    ] {
        let watch = watchdog
            .watch("one of two")
            .with_budget(Duration::from_nanos(1));
        drop(watch.enter());
        assert_eq!(&*next(own, |_| true).watch, "one of two");
        assert!(first.flush(PATIENCE) && second.flush(PATIENCE));
        assert!(others.try_recv().is_err());
        assert_eq!(watch.stats().polls, 1);
    }
    // The end of one watchdog leaves the other unchanged.
    drop(first);
    let stuck = second.watch("stuck");
    let poll = stuck.enter();
    let is_stuck = |slow: &SlowPoll, phase| &*slow.watch == "stuck" && slow.phase == phase;
    next(&of_second, |slow| is_stuck(slow, Phase::Running));
    drop(poll);
    next(&of_second, |slow| is_stuck(slow, Phase::Finished));
}

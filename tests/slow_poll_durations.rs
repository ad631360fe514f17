//! No duration is lost while threads record, render and publish at once. The test has its own process, because a process has
//! one recorder.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use shotclock::Watchdog;
use shotclock::prometheus::{Exporter, builder};
use shotclock::testing::MockClock;

const POLLS: u64 = 300_000;
const SERIES: &str = "shotclock_slow_poll_duration_seconds_count{watch=\"w\"} ";

fn durations(text: &str) -> u64 {
    let count = |line: &str| line.strip_prefix(SERIES)?.parse().ok();
    text.lines().find_map(count).unwrap_or(0)
}

#[test]
fn slow_poll_durations_during_rendering_are_complete() {
    let exporter = Exporter::new(builder().install_recorder().unwrap());
    let clock = MockClock::new();
    let set_up = Watchdog::builder().without_tracing().mock_clock(&clock);
    let watchdog = set_up.reports_per_second(0).build().unwrap();
    let watch = watchdog.watch("w");
    let is_over = AtomicBool::new(false);
    let publishes = || watchdog.publish_metrics();
    let takes_up = || exporter.run_upkeep();
    let renders = || drop(exporter.render());
    let works: [&(dyn Fn() + Sync); 3] = [&publishes, &takes_up, &renders];
    std::thread::scope(|scope| {
        for work in works {
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(SeqCst) {
                    work();
                }
            });
        }
        for _ in 0..POLLS {
            let poll = watch.enter();
            clock.advance(watch.budget() + Duration::from_nanos(1));
            drop(poll);
        }
        is_over.store(true, SeqCst);
    });
    assert_eq!(watch.stats().slow_polls, POLLS);
    // The overflow comes 10,000 at a time.
    let most = (0..=POLLS / 10_000)
        .map(|_| durations(&exporter.render()))
        .max();
    assert_eq!(most, Some(POLLS));
}

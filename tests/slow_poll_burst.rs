//! A million slow polls in a burst: the number of reports and the memory are bounded, and the counts are exact.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod heap;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use shotclock::prometheus::Exporter;
use shotclock::testing::MockClock;
use shotclock::{SlowPoll, Watch, WatchExt as _, Watchdog, WatchdogBuilder};

const POLLS: u64 = 1_000_000;
const PATIENCE: Duration = Duration::from_secs(120);

/// The number of polls of 11 ms, under a budget of 10 ms.
fn slow_polls(clock: &MockClock, watch: &Watch, count: u64) {
    for _ in 0..count {
        let slow = poll_fn(|_| {
            clock.advance(Duration::from_millis(11));
            Poll::Ready(())
        });
        let polled = pin!(slow.watched(watch)).poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_ready());
    }
}

/// The results of one burst.
struct Outcome {
    reported: u64,
    /// The sum in the reports.
    suppressed: u64,
}

/// The reporter is called after the burst only, so its queue stays full.
fn burst(set_up: impl FnOnce(WatchdogBuilder) -> WatchdogBuilder, memory: usize) -> Outcome {
    let clock = MockClock::new();
    let (reported, suppressed) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let (go_on, waits) = mpsc::channel::<()>();
    let report = {
        let (reported, suppressed) = (Arc::clone(&reported), Arc::clone(&suppressed));
        move |slow: &SlowPoll| {
            let _ = waits.recv();
            reported.fetch_add(1, SeqCst);
            suppressed.fetch_add(slow.suppressed, SeqCst);
        }
    };
    let builder = Watchdog::builder().without_tracing().mock_clock(&clock);
    let watchdog = set_up(builder.on_slow_poll(report)).build().unwrap();
    let watch = watchdog.watch("burst");
    // Makes the counters of the thread and the watch.
    slow_polls(&clock, &watch, 1);
    let grew = heap::growth(|| slow_polls(&clock, &watch, POLLS - 2));
    println!("{grew} bytes more at most");
    assert!(grew < memory, "{grew} bytes");
    drop(go_on);
    assert!(watchdog.flush(PATIENCE));
    // A last report in another second has the number of the suppressed polls.
    clock.advance(Duration::from_secs(1));
    slow_polls(&clock, &watch, 1);
    assert!(watchdog.flush(PATIENCE));
    let stats = watch.stats();
    assert_eq!((stats.polls, stats.slow_polls), (POLLS, POLLS));
    Outcome {
        reported: reported.load(SeqCst),
        suppressed: suppressed.load(SeqCst),
    }
}

/// Returns a published counter.
fn published(text: &str, series: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line.expect(series).trim().parse().unwrap()
}

#[test]
fn million_slow_polls_are_counted_in_bounded_memory() {
    // 5 of the 90 in each second are reported, and the queue takes 256 of those.
    let within = burst(|builder| builder, 4 << 20);
    assert!(
        (257..=258).contains(&within.reported),
        "{}",
        within.reported
    );
    let set_up =
        |builder: WatchdogBuilder| builder.reports_per_second(u32::MAX).report_queue(10_000);
    let without = burst(set_up, 16 << 20);
    assert!(
        (10_001..=10_002).contains(&without.reported),
        "{}",
        without.reported
    );
    assert_eq!(without.suppressed, 0);
    // A recorder keeps each duration until a scrape, so it is installed after the bursts.
    let recorder = shotclock::prometheus::builder().install_recorder().unwrap();
    let exporter = Exporter::new(recorder);
    let text = exporter.render();
    let limited = published(
        &text,
        "shotclock_reports_suppressed_total{reason=\"rate_limit\"}",
    );
    let dropped = published(&text, "shotclock_reports_dropped_total");
    let reported = within.reported + without.reported;
    println!("{reported} reported, {limited} suppressed, {dropped} dropped");
    assert_eq!(reported + limited + dropped, 2 * POLLS);
    assert_eq!(within.suppressed, limited, "each is in one report");
    let polls = published(&text, "shotclock_polls_total{watch=\"burst\"}");
    let slow = published(
        &text,
        "shotclock_slow_polls_total{watch=\"burst\",cause=\"unknown\"}",
    );
    assert_eq!((polls, slow), (2 * POLLS, 2 * POLLS));
    // The waiting durations come 10,000 at a time.
    let durations = "shotclock_slow_poll_duration_seconds_count{watch=\"burst\"}";
    let mut texts = (0..=2 * POLLS / 10_000).map(|_| exporter.render());
    assert!(texts.any(|text| published(&text, durations) == 2 * POLLS));
}

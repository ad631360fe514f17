//! A recorder that panics loses only its batch. The next batch brings the same totals.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use shotclock::{WatchExt as _, Watchdog};

const DURATIONS: &str = "shotclock_slow_poll_duration_seconds";
/// More than the queue holds, so some durations wait beside their series.
const SLOW_POLLS: u64 = 10_000;

/// Panics for each counter first, then for each histogram, and then no more.
static COUNTERS_PANIC: AtomicBool = AtomicBool::new(true);
static HISTOGRAMS_PANIC: AtomicBool = AtomicBool::new(true);
static ASKED: AtomicU64 = AtomicU64::new(0);
static ASKED_FOR_DURATIONS: AtomicU64 = AtomicU64::new(0);
static COUNTED: AtomicU64 = AtomicU64::new(0);
static RECORDED: AtomicU64 = AtomicU64::new(0);

struct Panics;

impl Recorder for Panics {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        ASKED.fetch_add(1, Relaxed);
        assert!(!COUNTERS_PANIC.load(Relaxed), "a recorder");
        match key.name() {
            "shotclock_polls_total" => Counter::from_arc(Arc::new(Total)),
            _ => Counter::noop(),
        }
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        if key.name() != DURATIONS {
            return Histogram::noop();
        }
        // The first request registers the series at 0. The second one is for durations.
        let asked = ASKED_FOR_DURATIONS.fetch_add(1, Relaxed);
        let panics = HISTOGRAMS_PANIC.load(Relaxed) && asked % 2 == 1;
        assert!(!panics, "a recorder");
        Histogram::from_arc(Arc::new(Durations))
    }
}

struct Total;

impl CounterFn for Total {
    fn increment(&self, _: u64) {}
    fn absolute(&self, value: u64) {
        COUNTED.fetch_max(value, Relaxed);
    }
}

struct Durations;

impl HistogramFn for Durations {
    fn record(&self, _: f64) {
        RECORDED.fetch_add(1, Relaxed);
    }
}

#[test]
fn panicking_recorder_loses_no_count() {
    metrics::set_global_recorder(Panics).unwrap();
    let watchdog = Watchdog::builder().without_tracing().build().unwrap();
    let watch = watchdog.watch("w").with_budget(Duration::from_nanos(1));
    for _ in 0..SLOW_POLLS {
        let slow = std::future::poll_fn(|_| {
            std::hint::black_box((0..100_u64).fold(7, |a, b| a ^ b));
            std::task::Poll::Ready(())
        });
        futures::executor::block_on(slow.watched(&watch));
    }
    assert_eq!(watch.stats().slow_polls, SLOW_POLLS);
    let publishes = |asked: &AtomicU64| {
        for _ in 0..3 {
            let before = asked.load(Relaxed);
            watchdog.publish_metrics();
            assert!(asked.load(Relaxed) > before, "it is asked again");
        }
    };
    publishes(&ASKED);
    assert_eq!((COUNTED.load(Relaxed), RECORDED.load(Relaxed)), (0, 0));
    COUNTERS_PANIC.store(false, Relaxed);
    publishes(&ASKED_FOR_DURATIONS);
    assert_eq!(COUNTED.load(Relaxed), SLOW_POLLS);
    assert_eq!(RECORDED.load(Relaxed), 0, "each batch ended at a panic");
    HISTOGRAMS_PANIC.store(false, Relaxed);
    publishes(&ASKED_FOR_DURATIONS);
    assert_eq!(RECORDED.load(Relaxed), SLOW_POLLS, "none is lost");
}

//! A recorder that panics loses its batch, and nothing else.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use shotclock::{WatchExt as _, Watchdog};

static ASKED: AtomicU64 = AtomicU64::new(0);

struct Panics;

impl Recorder for Panics {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        ASKED.fetch_add(1, Relaxed);
        panic!("a recorder");
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        panic!("a recorder");
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        panic!("a recorder");
    }
}

#[test]
fn a_recorder_that_panics_harms_nothing() {
    metrics::set_global_recorder(Panics).unwrap();
    let watchdog = Watchdog::builder().without_tracing().build().unwrap();
    let watch = watchdog.watch("w");
    futures::executor::block_on(async {}.watched(&watch));
    for _ in 0..3 {
        let before = ASKED.load(Relaxed);
        watchdog.publish_metrics();
        assert!(ASKED.load(Relaxed) > before);
    }
    assert_eq!(watch.stats().polls, 1);
}

//! A recorder that is installed after the watchdog gets all counts. A process has one recorder, so the other order is another
//! program.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use shotclock::{WatchExt as _, Watchdog};

/// Returns the values of one series, or all samples of a histogram.
fn value(snapshotter: &Snapshotter, name: &str, labels: &[(&str, &str)]) -> Option<DebugValue> {
    let all = snapshotter.snapshot().into_vec();
    let mut found = all.into_iter().filter(|(key, ..)| {
        let key = key.key();
        let mut has = key
            .labels()
            .map(|label| (label.key(), label.value()))
            .collect::<Vec<_>>();
        let mut wants = labels.to_vec();
        has.sort_unstable();
        wants.sort_unstable();
        key.name() == name && has == wants
    });
    found.next().map(|(.., value)| value)
}

#[test]
fn recorder_installed_last_gets_all_counts() {
    let watchdog = Watchdog::builder()
        .without_tracing()
        .reports_per_second(0)
        .build()
        .unwrap();
    let watch = watchdog.watch("w");
    let strict = watch.with_budget(Duration::ZERO);
    let poll = |watch| futures::executor::block_on(async {}.watched(watch));
    (0..7).for_each(|_| poll(&watch));
    (0..3).for_each(|_| poll(&strict));
    watchdog.publish_metrics(); // no recorder yet

    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    poll(&strict);
    watchdog.publish_metrics();

    let histogram = value(
        &snapshotter,
        "shotclock_slow_poll_duration_seconds",
        &[("watch", "w")],
    );
    let Some(DebugValue::Histogram(samples)) = histogram else {
        panic!("{histogram:?}")
    };
    assert_eq!(
        samples.len(),
        4,
        "those before the recorder came are there too"
    );
    let longest = watch.stats().longest.as_secs_f64();
    assert!(
        samples
            .iter()
            .all(|sample| sample.0 > 0.0 && sample.0 <= longest)
    );

    // A snapshot of this recorder resets its counters to 0. The crate publishes totals, so the next batch has them.
    let counter = |name, labels: &[_]| {
        watchdog.publish_metrics();
        value(&snapshotter, name, labels)
    };
    assert_eq!(
        counter("shotclock_polls_total", &[("watch", "w")]),
        Some(DebugValue::Counter(11))
    );
    assert_eq!(
        counter(
            "shotclock_slow_polls_total",
            &[("watch", "w"), ("cause", "unknown")]
        ),
        Some(DebugValue::Counter(4))
    );
    assert_eq!(
        counter("shotclock_polls_in_flight", &[("watch", "w")]),
        Some(DebugValue::Gauge(0.0.into()))
    );
}

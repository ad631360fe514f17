//! The histogram through the facade, for an exporter whose text cannot be extended.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use shotclock::Watchdog;
use shotclock::prometheus::{Exporter, builder};

#[test]
fn buckets_as_counters_have_no_duplicate_series() {
    let handle = builder().install_recorder().unwrap();
    let builder = Watchdog::builder().without_tracing().buckets_as_counters();
    let watchdog = builder.build().unwrap();
    let watch = watchdog.watch("w");
    (0..5).for_each(|_| drop(watch.enter()));
    watchdog.publish_metrics();
    let text = handle.render();
    for line in [
        "# TYPE shotclock_poll_duration_seconds_bucket counter",
        r#"shotclock_poll_duration_seconds_bucket{watch="w",le="10"} 5"#,
        r#"shotclock_poll_duration_seconds_bucket{watch="w",le="+Inf"} 5"#,
        r#"shotclock_poll_duration_seconds_count{watch="w"} 5"#,
        r#"shotclock_poll_busy_microseconds_total{watch="w"}"#,
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    // Our own exporter then renders no histogram itself.
    let rendered = Exporter::new(handle).render();
    assert!(!rendered.contains("# TYPE shotclock_poll_duration_seconds histogram"));
    assert!(!rendered.contains("shotclock_poll_busy_seconds_total"));
    assert_eq!(
        rendered.matches(r#"_bucket{watch="w",le="10"} 5"#).count(),
        1
    );
}

//! Names, descriptions and units of all published series.

use metrics::{Key, Label, Metadata, Recorder, Unit};

use crate::pending_durations::{OFFLOAD_RUN, OFFLOAD_WAIT, RUNTIME_LAG, SLOW_POLL_DURATION};

/// The crate's histograms of the facade, for which an exporter needs buckets.
#[cfg(feature = "prometheus")]
pub(crate) const HISTOGRAMS: [&str; 4] =
    [SLOW_POLL_DURATION, RUNTIME_LAG, OFFLOAD_WAIT, OFFLOAD_RUN];

/// The exporter renders it from the watches' own cells: a histogram of the facade costs more than the timing of a poll.
pub(crate) const POLL_DURATION: (&str, &str) = (
    "shotclock_poll_duration_seconds",
    "How long polls ran, each from entry to return.",
);
/// The exporter renders it, because the facade's counters are whole numbers.
#[cfg(feature = "prometheus")]
pub(crate) const POLL_BUSY: (&str, &str) = ("shotclock_poll_busy_seconds_total", BUSY_TEXT);

/// As [`POLL_BUSY`].
pub(crate) const CULPRITS: (&str, &str) = (
    "shotclock_culprit_over_budget_seconds_total",
    "Time past the budgets of reported polls, by the function that held the worker: the worst 50, and other.",
);

const BUSY_TEXT: &str =
    "Time spent in polls and destructors, less that of watched polls inside them.";

pub(super) const POLLS: &str = "shotclock_polls_total";
pub(super) const SLOW_POLLS: &str = "shotclock_slow_polls_total";
pub(super) const PANICKED_POLLS: &str = "shotclock_panicked_polls_total";
pub(super) const CONTAINED_POLLS: &str = "shotclock_contained_polls_total";
pub(super) const POLLS_IN_FLIGHT: &str = "shotclock_polls_in_flight";
pub(super) const STALLS_IN_FLIGHT: &str = "shotclock_stalls_in_flight";
pub(super) const OLDEST_STALL: &str = "shotclock_oldest_stall_seconds";
pub(super) const DROPPED: &str = "shotclock_reports_dropped_total";
pub(super) const SUPPRESSED: &str = "shotclock_reports_suppressed_total";
pub(super) const STUCK_WORKERS: &str = "shotclock_stuck_workers";
pub(super) const BUSY_WORKERS: &str = "shotclock_busy_workers";
pub(super) const WORKER_STALLS: &str = "shotclock_worker_stalls_total";
pub(super) const OFFLOAD_IN_FLIGHT: &str = "shotclock_offload_in_flight";
pub(super) const OFFLOAD_QUEUED: &str = "shotclock_offload_queued";
pub(super) const OFFLOAD_REJECTED: &str = "shotclock_offload_rejected_total";
pub(super) const OFFLOAD_PANICS: &str = "shotclock_offload_panics_total";
pub(super) const OFFLOAD_INLINE: &str = "shotclock_offload_inline_total";
pub(super) const BUCKET: &str = "shotclock_poll_duration_seconds_bucket";
pub(super) const COUNT: &str = "shotclock_poll_duration_seconds_count";
pub(super) const CULPRIT_MICROSECONDS: &str = "shotclock_culprit_over_budget_microseconds_total";
pub(super) const BUSY_MICROSECONDS: &str = "shotclock_poll_busy_microseconds_total";

pub(super) const METADATA: Metadata<'static> =
    Metadata::new("shotclock", metrics::Level::INFO, Some("shotclock"));

/// Describes each series to a recorder.
pub(super) fn describe(recorder: &dyn Recorder) {
    let counters = [
        (POLLS, "Polls that have ended."),
        (
            SLOW_POLLS,
            "Polls that ran past their budget, less the slow polls inside them.",
        ),
        (PANICKED_POLLS, "Polls that ended by a panic."),
        (
            CONTAINED_POLLS,
            "Polls before which the worker's other tasks were handed to another thread.",
        ),
        (DROPPED, "Reports that a reporter could not keep up with."),
        (SUPPRESSED, "Slow polls that were counted and not reported."),
        (
            WORKER_STALLS,
            "How often a worker of a guarded runtime was found to be stuck.",
        ),
        (OFFLOAD_REJECTED, "Closures that a lane did not take."),
        (OFFLOAD_PANICS, "Offloaded closures that panicked."),
        (
            OFFLOAD_INLINE,
            "Closures that were run where they were offloaded, on a thread of the same lane.",
        ),
    ];
    for (name, text) in counters {
        recorder.describe_counter(name.into(), Some(Unit::Count), text.into());
    }
    let gauges = [
        (POLLS_IN_FLIGHT, "Polls that run at this moment."),
        (
            STALLS_IN_FLIGHT,
            "Polls that run at this moment and are over their budget.",
        ),
        (
            STUCK_WORKERS,
            "Workers of a guarded runtime that are stuck in one poll at this moment.",
        ),
        (
            BUSY_WORKERS,
            "Workers of a guarded runtime that have not returned to their driver for very long, in one poll or in many.",
        ),
        (
            OFFLOAD_IN_FLIGHT,
            "Offloaded closures that run at this moment.",
        ),
        (
            OFFLOAD_QUEUED,
            "Closures that wait for a place in their lane.",
        ),
    ];
    for (name, text) in gauges {
        recorder.describe_gauge(name.into(), Some(Unit::Count), text.into());
    }
    recorder.describe_gauge(
        OLDEST_STALL.into(),
        Some(Unit::Seconds),
        "For how long the oldest poll that is over its budget has been running; 0 if there is none."
            .into(),
    );
    let histograms = [
        (SLOW_POLL_DURATION, "How long slow polls ran, one by one."),
        (
            RUNTIME_LAG,
            "How long a task of a guarded runtime waited that was woken from outside.",
        ),
        (OFFLOAD_WAIT, "How long closures waited before they ran."),
        (OFFLOAD_RUN, "How long closures ran."),
    ];
    for (name, text) in histograms {
        recorder.describe_histogram(name.into(), Some(Unit::Seconds), text.into());
    }
}

/// Describes the series that replace the rendered ones.
pub(super) fn describe_buckets(recorder: &dyn Recorder) {
    let (_, text) = POLL_DURATION;
    for (name, text) in [
        (CULPRIT_MICROSECONDS, CULPRITS.1),
        (BUCKET, text),
        (COUNT, text),
        (BUSY_MICROSECONDS, BUSY_TEXT),
    ] {
        recorder.describe_counter(name.into(), None, text.into());
    }
}

pub(super) fn key<const N: usize>(name: &'static str, labels: [(&'static str, &str); N]) -> Key {
    let labels = labels.map(|(key, value)| Label::new(key, value.to_owned()));
    Key::from_parts(name, labels.to_vec())
}

/// Returns seconds for Prometheus: exact, without an exponent and without trailing zeros.
pub(crate) fn seconds(nanos: u64) -> String {
    let (whole, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    if rest == 0 {
        return whole.to_string();
    }
    let text = format!("{whole}.{rest:09}");
    text.trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::PUBLISHED_BOUNDS_NANOS;

    #[test]
    fn seconds_of_nanos_is_an_exact_decimal() {
        assert_eq!(seconds(0), "0");
        assert_eq!(seconds(1_000), "0.000001");
        assert_eq!(seconds(10_000_000_000), "10");
        assert_eq!(seconds(1_234_500_000), "1.2345");
        for bound in PUBLISHED_BOUNDS_NANOS {
            let parsed: f64 = seconds(bound).parse().unwrap();
            assert_eq!(parsed, bound as f64 / 1e9);
        }
    }
}

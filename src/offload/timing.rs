//! Measures how long work waits in a lane and how long it runs, for the metrics.

use std::any::Any;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::error::OffloadError;
use super::queue::RunSpan;
use crate::counters::LaneCounters;
use crate::pending_durations::{Series, SeriesRef};
use crate::publish;
use crate::sys;

/// Measures the wait of a job.
pub(super) struct WaitTimer {
    counts: &'static LaneCounters,
    at: Instant,
    is_forked: bool,
}

/// Measures the run of a job.
pub(super) struct RunTimer {
    counts: &'static LaneCounters,
    since: Instant,
    is_forked: bool,
}

impl WaitTimer {
    /// Starts the measurement of a wait.
    pub(super) fn now(counts: &'static LaneCounters) -> Self {
        Self {
            counts,
            at: Instant::now(),
            is_forked: sys::is_forked(),
        }
    }

    /// Returns whether this is the child of a fork, where the lane has no threads.
    pub(super) fn is_forked(&self) -> bool {
        self.is_forked
    }

    /// Ends the wait, and starts the measurement of the run.
    pub(super) fn run(self) -> RunTimer {
        let Self {
            counts,
            at,
            is_forked,
        } = self;
        let since = Instant::now();
        counts.in_flight.fetch_add(1, Relaxed);
        let running = RunTimer {
            counts,
            since,
            is_forked,
        };
        running.sample(counts.wait, at, since);
        running
    }
}

impl RunTimer {
    /// Counts a panic, and returns its error.
    pub(super) fn panicked(&self, payload: Box<dyn Any + Send>) -> OffloadError {
        OffloadError::panicked(self.counts, payload)
    }

    /// Ends the measurement.
    pub(super) fn end(self) -> RunSpan {
        let ran = RunSpan {
            from: self.since,
            to: Instant::now(),
        };
        self.sample(self.counts.run, ran.from, ran.to);
        self.counts.in_flight.fetch_sub(1, Relaxed);
        ran
    }

    /// Records a duration. In the child of a fork, no thread would publish it.
    fn sample(&self, series: &'static Series, from: Instant, to: Instant) {
        let nanos = to.saturating_duration_since(from).as_nanos();
        if !self.is_forked {
            publish::record_duration(
                SeriesRef::Static(series),
                u64::try_from(nanos).unwrap_or(u64::MAX),
            );
        }
    }
}

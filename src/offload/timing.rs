//! How long something waited in a lane and how long it ran, as the metrics have it.

use std::any::Any;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::error::OffloadError;
use super::queue::Ran;
use crate::counters::LaneCounters;
use crate::pending_durations::{Series, SeriesRef};
use crate::publish;
use crate::sys;

/// Something that waits.
pub(super) struct Asked {
    counts: &'static LaneCounters,
    at: Instant,
    is_forked: bool,
}

/// Something that runs, until it is ended.
pub(super) struct Running {
    counts: &'static LaneCounters,
    since: Instant,
    is_forked: bool,
}

impl Asked {
    /// The wait counts from now.
    pub(super) fn now(counts: &'static LaneCounters) -> Self {
        Self {
            counts,
            at: Instant::now(),
            is_forked: sys::is_forked(),
        }
    }

    /// Whether this is the child of a fork, where no thread works for the lane.
    pub(super) fn is_forked(&self) -> bool {
        self.is_forked
    }

    /// It begins, on this thread.
    pub(super) fn run(self) -> Running {
        let Self {
            counts,
            at,
            is_forked,
        } = self;
        let since = Instant::now();
        counts.in_flight.fetch_add(1, Relaxed);
        let running = Running {
            counts,
            since,
            is_forked,
        };
        running.sample(counts.wait, at, since);
        running
    }
}

impl Running {
    /// It panicked.
    pub(super) fn panicked(&self, payload: Box<dyn Any + Send>) -> OffloadError {
        OffloadError::panicked(self.counts, payload)
    }

    /// It has ended.
    pub(super) fn end(self) -> Ran {
        let ran = Ran {
            from: self.since,
            to: Instant::now(),
        };
        self.sample(self.counts.run, ran.from, ran.to);
        self.counts.in_flight.fetch_sub(1, Relaxed);
        ran
    }

    /// In the child of a fork no thread takes up what is handed over.
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

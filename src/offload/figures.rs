//! How long something waited in a lane and how long it ran, as the metrics have it.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::error::OffloadError;
use crate::publish;
use crate::samples::Series;
use crate::watch::LaneCounts;

/// Something that waits.
pub(super) struct Asked {
    counts: Arc<LaneCounts>,
    at: Instant,
}

/// Something that runs, until it is dropped.
pub(super) struct Running {
    counts: Arc<LaneCounts>,
    since: Instant,
}

impl Asked {
    /// The wait counts from now.
    pub(super) fn now(counts: &Arc<LaneCounts>) -> Self {
        Self {
            counts: Arc::clone(counts),
            at: Instant::now(),
        }
    }

    /// It begins, on this thread.
    pub(super) fn run(self) -> Running {
        let Self { counts, at } = self;
        let since = Instant::now();
        sample(&counts.wait, at, since);
        counts.in_flight.fetch_add(1, Relaxed);
        Running { counts, since }
    }
}

impl Running {
    /// It panicked.
    pub(super) fn panicked(&self, payload: Box<dyn Any + Send>) -> OffloadError {
        OffloadError::panicked(&self.counts, payload)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        sample(&self.counts.run, self.since, Instant::now());
        self.counts.in_flight.fetch_sub(1, Relaxed);
    }
}

fn sample(series: &Arc<Series>, from: Instant, to: Instant) {
    let nanos = to.saturating_duration_since(from).as_nanos();
    publish::sample(series, u64::try_from(nanos).unwrap_or(u64::MAX));
}

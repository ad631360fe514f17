//! A bounded place to run closures, and its figures.

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::thread::available_parallelism;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::{OffloadError, PanicPayload};
use crate::publish;
use crate::samples::Series;
use crate::watch::{LaneCounts, enroll_lane};

/// So many closures at once, the others in the order in which they came.
pub(super) struct Lane {
    places: Arc<Semaphore>,
    counts: Arc<LaneCounts>,
}

static CPU: LazyLock<Lane> = LazyLock::new(|| Lane::new("cpu", cores()));

/// The default lane, for work that computes.
pub(super) fn cpu() -> &'static Lane {
    &CPU
}

fn cores() -> usize {
    available_parallelism().map_or(1, std::num::NonZero::get)
}

impl Lane {
    fn new(name: &str, limit: usize) -> Self {
        // Without its thread the lane still works; only its figures are not seen.
        let _ = publish::start();
        Self {
            places: Arc::new(Semaphore::new(limit)),
            counts: enroll_lane(name),
        }
    }

    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(&self.counts.name)
    }

    /// Waits for a place.
    pub(super) async fn place(&self) -> Place {
        let asked = Instant::now();
        let queued = Held::one(&self.counts, |counts| &counts.queued);
        let permit = Arc::clone(&self.places).acquire_owned().await;
        Place {
            // A semaphore that nobody closes always gives one.
            permit: permit.ok(),
            queued,
            asked,
        }
    }
}

/// A place in the lane that is not used yet.
pub(super) struct Place {
    permit: Option<OwnedSemaphorePermit>,
    queued: Held,
    asked: Instant,
}

/// A place in use. Dropping it gives it back.
pub(super) struct Running {
    counts: Arc<LaneCounts>,
    since: Instant,
    _in_flight: Held,
    /// Last, so that whoever comes next finds the figures done.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// The closure begins, on this thread.
    pub(super) fn run(self) -> Running {
        let counts = Arc::clone(&self.queued.counts);
        let since = Instant::now();
        sample(&counts.wait, self.asked, since);
        drop(self.queued);
        Running {
            _in_flight: Held::one(&counts, |counts| &counts.in_flight),
            counts,
            since,
            _permit: self.permit,
        }
    }
}

impl Running {
    /// The closure panicked.
    pub(super) fn panicked(&self, payload: Box<dyn Any + Send>) -> OffloadError {
        self.counts.panics.fetch_add(1, Relaxed);
        OffloadError::Panicked(PanicPayload::new(Arc::clone(&self.counts.name), payload))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        sample(&self.counts.run, self.since, Instant::now());
    }
}

fn sample(series: &Arc<Series>, from: Instant, to: Instant) {
    let nanos = to.saturating_duration_since(from).as_nanos();
    publish::sample(series, u64::try_from(nanos).unwrap_or(u64::MAX));
}

/// One more in a gauge, for as long as it lives.
struct Held {
    counts: Arc<LaneCounts>,
    gauge: fn(&LaneCounts) -> &AtomicU64,
}

impl Held {
    fn one(counts: &Arc<LaneCounts>, gauge: fn(&LaneCounts) -> &AtomicU64) -> Self {
        gauge(counts).fetch_add(1, Relaxed);
        Self {
            counts: Arc::clone(counts),
            gauge,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        (self.gauge)(&self.counts).fetch_sub(1, Relaxed);
    }
}

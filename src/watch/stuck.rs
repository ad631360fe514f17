//! The workers of guarded runtimes that are stuck at this moment: one word of a watchdog's health.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::Clock;

/// Since when each worker has made no progress, as a raw reading of the clock, by guard and worker.
#[derive(Debug, Default)]
pub(crate) struct StuckWorkers {
    since: Mutex<BTreeMap<(u64, usize), u64>>,
}

impl StuckWorkers {
    pub(crate) fn note(&self, guard: u64, worker: usize, since: u64) {
        self.lock().insert((guard, worker), since);
    }

    pub(crate) fn clear(&self, guard: u64, worker: usize) {
        self.lock().remove(&(guard, worker));
    }

    /// How many there are, and for how many nanoseconds the oldest has been stuck.
    pub(super) fn now(&self, clock: &Clock) -> (u64, Option<u64>) {
        let (since, now) = (self.lock(), clock.raw());
        let ages = since.values().map(|since| clock.nanos_between(*since, now));
        (since.len() as u64, ages.max())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(u64, usize), u64>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

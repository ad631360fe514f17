//! Keeps the workers of guarded runtimes that are stuck now, for a watchdog's health.

use std::collections::BTreeMap;

use crate::clock::Clock;
use crate::sync::{Lock, LockGuard};

/// Maps a guard and a worker to the raw clock reading since which the worker has made no progress.
#[derive(Debug, Default)]
pub(crate) struct StuckWorkers {
    since: Lock<BTreeMap<(u64, usize), u64>>,
}

impl StuckWorkers {
    pub(crate) fn insert(&self, guard: u64, worker: usize, since: u64) {
        self.lock().insert((guard, worker), since);
    }

    pub(crate) fn remove(&self, guard: u64, worker: usize) {
        self.lock().remove(&(guard, worker));
    }

    /// Returns the number of stuck workers, and the age of the oldest in nanoseconds.
    pub(super) fn count_and_oldest_nanos(&self, clock: &Clock) -> (u64, Option<u64>) {
        let (since, now) = (self.lock(), clock.raw());
        let ages = since.values().map(|since| clock.nanos_between(*since, now));
        (since.len() as u64, ages.max())
    }

    fn lock(&self) -> LockGuard<'_, BTreeMap<(u64, usize), u64>> {
        self.since.lock()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn count_and_oldest_follows_inserts_and_removes() {
        let (clock, time) = Clock::mock();
        let stuck = StuckWorkers::default();
        assert_eq!(stuck.count_and_oldest_nanos(&clock), (0, None));
        stuck.insert(1, 0, clock.raw());
        time.increment(Duration::from_nanos(30));
        stuck.insert(2, 0, clock.raw());
        time.increment(Duration::from_nanos(40));
        assert_eq!(stuck.count_and_oldest_nanos(&clock), (2, Some(70)));
        stuck.remove(1, 0);
        assert_eq!(stuck.count_and_oldest_nanos(&clock), (1, Some(40)));
    }
}

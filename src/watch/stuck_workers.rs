//! Keeps the workers of guarded runtimes that are stuck now, for a watchdog's health.

use crate::clock::Clock;
use crate::sync::Lock;

/// The stuck workers of one watchdog, in no order: there are few.
#[derive(Debug, Default)]
pub(crate) struct StuckWorkers {
    workers: Lock<Vec<StuckSince>>,
}

#[derive(Debug)]
struct StuckSince {
    guard: u64,
    worker: usize,
    /// The raw clock reading since which the worker has made no progress.
    since: u64,
}

impl StuckWorkers {
    pub(crate) fn insert(&self, guard: u64, worker: usize, since: u64) {
        self.remove(guard, worker);
        self.workers.lock().push(StuckSince {
            guard,
            worker,
            since,
        });
    }

    pub(crate) fn remove(&self, guard: u64, worker: usize) {
        let mut workers = self.workers.lock();
        workers.retain(|stuck| (stuck.guard, stuck.worker) != (guard, worker));
    }

    /// Returns the number of stuck workers, and the age of the oldest in nanoseconds.
    pub(super) fn count_and_oldest_nanos(&self, clock: &Clock) -> (u64, Option<u64>) {
        let (workers, now) = (self.workers.lock(), clock.raw());
        let ages = workers
            .iter()
            .map(|stuck| clock.nanos_between(stuck.since, now));
        (workers.len() as u64, ages.max())
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

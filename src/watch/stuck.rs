//! The workers of guarded runtimes that are stuck at this moment: one word of a watchdog's health.

use std::collections::BTreeMap;

use crate::clock::Clock;
use crate::sync::{Lock, LockGuard};

/// Since when each worker has made no progress, as a raw reading of the clock, by guard and worker.
#[derive(Debug, Default)]
pub(crate) struct StuckWorkers {
    since: Lock<BTreeMap<(u64, usize), u64>>,
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

    fn lock(&self) -> LockGuard<'_, BTreeMap<(u64, usize), u64>> {
        self.since.lock()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn workers_are_stuck_until_they_are_cleared() {
        let (clock, time) = quanta::Clock::mock();
        let clock = Clock::over(clock);
        let stuck = StuckWorkers::default();
        assert_eq!(stuck.now(&clock), (0, None));
        stuck.note(1, 0, clock.raw());
        time.increment(Duration::from_nanos(30));
        stuck.note(2, 0, clock.raw());
        time.increment(Duration::from_nanos(40));
        assert_eq!(stuck.now(&clock), (2, Some(70)));
        stuck.clear(1, 0);
        assert_eq!(stuck.now(&clock), (1, Some(40)));
    }
}

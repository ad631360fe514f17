//! Floor 1: when the whole process was not run, as its sentinel noticed by its own sleep, which took
//! longer than it should have and not for want of a processor.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::clock::Clock;
use crate::sync::Lock;

/// Shorter ones are not told from a timer that was late.
pub(crate) const LEAST: u64 = 5_000_000;
/// So many are remembered; a poll that saw more of them has been stuck anyway.
const REMEMBERED: usize = 16;

/// Suspensions, and when somebody last looked for one.
pub(crate) struct Suspensions {
    past: Lock<VecDeque<Suspension>>,
    looked_at: AtomicU64,
}

struct Suspension {
    /// When it was noticed, as a raw reading of the clock.
    noticed: u64,
    nanos: u64,
}

/// Those of this process.
pub(crate) static SUSPENSIONS: Suspensions = Suspensions::new();

/// When the sentinel was late, for want of a processor or because it waited for a thread that was not run:
/// nobody was suspended then, but who was not run may have had a lock.
pub(crate) static DELAYS: Suspensions = Suspensions::new();

impl Suspensions {
    const fn new() -> Self {
        Self {
            past: Lock::new(VecDeque::new()),
            looked_at: AtomicU64::new(0),
        }
    }

    /// Tells that nothing ran for so long just before `now`.
    pub(crate) fn note(&self, now: u64, nanos: u64) {
        let mut past = self.past.lock();
        if past.len() == REMEMBERED {
            past.pop_front();
        }
        past.push_back(Suspension {
            noticed: now,
            nanos,
        });
    }

    /// For how long of the time since `start` nothing ran, as far as was noticed; at most.
    pub(crate) fn since(&self, start: u64) -> u64 {
        let past = self.past.lock();
        let after = past.iter().filter(|suspension| suspension.noticed > start);
        after.map(|suspension| suspension.nanos).sum()
    }

    /// Tells that suspensions up to now have been noted.
    pub(crate) fn looked(&self, now: u64) {
        self.looked_at.store(now, Relaxed);
    }

    /// Whether one may have begun that nobody has noticed yet: the last look is longer ago than it
    /// should be.
    pub(crate) fn may_be_unnoticed(&self, clock: &Clock, now: u64, interval: u64) -> bool {
        let ago = clock.nanos_between(self.looked_at.load(Relaxed), now);
        ago > interval + LEAST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_noticed_after_the_start_counts() {
        let suspensions = Suspensions::new();
        suspensions.note(100, 7);
        suspensions.note(200, 11);
        assert_eq!(suspensions.since(50), 18);
        assert_eq!(suspensions.since(100), 11);
        assert_eq!(suspensions.since(200), 0);
        for n in 0..100 {
            suspensions.note(300 + n, 1);
        }
        assert_eq!(suspensions.since(0), REMEMBERED as u64);
    }

    #[test]
    fn after_a_gap_in_looking_something_may_be_unnoticed() {
        let (clock, _) = quanta::Clock::mock();
        let clock = Clock::over(clock);
        let suspensions = Suspensions::new();
        suspensions.looked(1_000);
        assert!(!suspensions.may_be_unnoticed(&clock, 1_000 + LEAST, 10));
        assert!(suspensions.may_be_unnoticed(&clock, 1_000 + LEAST + 11, 10));
    }
}

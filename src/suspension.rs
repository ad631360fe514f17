//! Floor 1: when the whole process was not run, and when the sentinel was not run for want of a processor.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::clock::Clock;

/// Nanoseconds. Shorter ones are not told from a timer that was late.
pub(crate) const LEAST: u64 = 5_000_000;
/// So many are remembered; a poll that saw more of them has been stuck anyway.
const REMEMBERED: usize = 16;

/// Stretches in which something was not run.
pub(crate) struct Suspensions {
    past: Mutex<VecDeque<Suspension>>,
}

/// Its two moments are raw readings of the clock.
struct Suspension {
    from: u64,
    noticed: u64,
    nanos: u64,
}

/// Those of this process. Two witnesses agree on each: see [`witness`](crate::witness).
pub(crate) static SUSPENSIONS: Suspensions = Suspensions::new();

/// When the sentinel was late for want of a processor, or because it waited for a thread that could run
/// and was not run: who was not run may have had a lock. What else holds up the sentinel excuses no poll.
pub(crate) static DELAYS: Suspensions = Suspensions::new();

impl Suspensions {
    const fn new() -> Self {
        Self {
            past: Mutex::new(VecDeque::new()),
        }
    }

    /// Adds that for so many nanoseconds between two moments nothing ran. Two that overlap, because two
    /// threads noticed them, are one.
    pub(crate) fn note(&self, clock: &Clock, from: u64, noticed: u64, nanos: u64) {
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = Suspension {
            from,
            noticed,
            nanos,
        };
        past.retain(|old| {
            let overlaps = old.noticed > new.from && new.noticed > old.from;
            if overlaps {
                new.from = new.from.min(old.from);
                new.noticed = new.noticed.max(old.noticed);
                let all = clock.nanos_between(new.from, new.noticed);
                new.nanos = all.min(new.nanos.saturating_add(old.nanos));
            }
            !overlaps
        });
        if past.len() == REMEMBERED {
            past.pop_front();
        }
        past.push_back(new);
    }

    /// For how long of the time since `start` nothing ran, as far as was noticed; at most.
    pub(crate) fn since(&self, start: u64) -> u64 {
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let after = past.iter().filter(|suspension| suspension.noticed > start);
        after.map(|suspension| suspension.nanos).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> Clock {
        Clock::over(quanta::Clock::mock().0)
    }

    #[test]
    fn only_what_was_noticed_after_the_start_counts() {
        let (suspensions, clock) = (Suspensions::new(), clock());
        suspensions.note(&clock, 90, 100, 7);
        suspensions.note(&clock, 180, 200, 11);
        assert_eq!(suspensions.since(50), 18);
        assert_eq!(suspensions.since(100), 11);
        assert_eq!(suspensions.since(200), 0);
        for n in 0..100 {
            suspensions.note(&clock, 300 + n, 301 + n, 1);
        }
        assert_eq!(suspensions.since(0), REMEMBERED as u64);
    }

    #[test]
    fn what_two_threads_noticed_counts_once() {
        let (suspensions, clock) = (Suspensions::new(), clock());
        suspensions.note(&clock, 100, 200, 100);
        suspensions.note(&clock, 150, 210, 60);
        assert_eq!(suspensions.since(0), 110);
        suspensions.note(&clock, 90, 220, 130);
        assert_eq!(suspensions.since(0), 130);
        suspensions.note(&clock, 220, 230, 10);
        assert_eq!(suspensions.since(0), 140);
    }
}

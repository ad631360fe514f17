//! Floor 1: when the whole process was not run, and when the sentinel was not run for want of a processor.

use std::collections::VecDeque;

use crate::clock::Clock;
use crate::sync::Lock;

/// Nanoseconds. Shorter ones are not told from a timer that was late.
pub(crate) const LEAST: u64 = 5_000_000;
/// So many are remembered; a poll that saw more of them has been stuck anyway.
const REMEMBERED: usize = 16;

/// Stretches in which something was not run.
pub(crate) struct Suspensions {
    past: Lock<VecDeque<Suspension>>,
}

/// Its two moments are raw readings of the clock.
struct Suspension {
    from: u64,
    noticed: u64,
    nanos: u64,
}

/// Those of this process. Two witnesses agree on each: see [`witness`](crate::liveness).
pub(crate) static SUSPENSIONS: Suspensions = Suspensions::new();

/// When the sentinel was late for want of a processor, or because it waited for a thread that could run
/// and was not run: who was not run may have had a lock. What else holds up the sentinel excuses no poll.
pub(crate) static DELAYS: Suspensions = Suspensions::new();

/// What is known when a witness has overslept. Nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Overslept {
    /// By so much.
    pub(crate) late: u64,
    /// How long the witness itself waited for a processor.
    pub(crate) waited: u64,
    /// How long the other witness gave no sign of life.
    pub(crate) silence: u64,
    /// So much processor time the other threads used, if that is known.
    pub(crate) used: Option<u64>,
    /// How long the witness slept or waited as it should have: then the others may have run.
    pub(crate) excused: u64,
    /// How many threads run at once.
    pub(crate) processors: u64,
}

impl Overslept {
    /// Whether the whole process was not run. What one thread was late by is no evidence: see
    /// [`witness`](crate::liveness).
    pub(crate) fn is_suspension(&self) -> bool {
        // A timer is late by less. So the two silences may differ by that.
        const LATE: u64 = 1_000_000;
        let unexplained = self.late.saturating_sub(self.waited);
        let is_silent = self.silence.saturating_add(LATE) >= unexplained;
        // A stopped process uses none. Before it was stopped and after it was continued it may have run, on
        // all processors.
        let ran = self.excused.saturating_add(LEAST);
        let most = ran.saturating_mul(self.processors);
        unexplained > LEAST && is_silent && self.used.is_none_or(|used| used <= most)
    }
}

impl Suspensions {
    const fn new() -> Self {
        Self {
            past: Lock::new(VecDeque::new()),
        }
    }

    /// Adds a number of nanoseconds between two moments in which nothing ran. Two that overlap, because two
    /// threads noticed them, are one.
    pub(crate) fn note(&self, clock: &Clock, from: u64, noticed: u64, nanos: u64) {
        let mut past = self.past.lock();
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
        let past = self.past.lock();
        let after = past.iter().filter(|suspension| suspension.noticed > start);
        after.map(|suspension| suspension.nanos).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> Clock {
        Clock::mock().0
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

    const MS: u64 = 1_000_000;

    /// A process of two processors that was stopped for two seconds in a nap of 10 ms.
    const STOPPED: Overslept = Overslept {
        late: 1_995 * MS,
        waited: 2 * MS,
        silence: 2_005 * MS,
        used: Some(20 * MS),
        excused: 12 * MS,
        processors: 2,
    };

    #[test]
    fn a_process_that_was_stopped_was_suspended() {
        assert!(STOPPED.is_suspension());
        let unknown = Overslept {
            used: None,
            ..STOPPED
        };
        assert!(unknown.is_suspension());
    }

    #[test]
    fn a_witness_alone_that_was_held_up_is_no_suspension() {
        // The other one gave signs of life every 20 ms.
        let silence = 20 * MS;
        assert!(!Overslept { silence, ..STOPPED }.is_suspension());
    }

    #[test]
    fn a_process_whose_other_threads_ran_was_not_suspended() {
        let used = |used| Overslept {
            used: Some(used),
            ..STOPPED
        };
        let most = 2 * (12 * MS + LEAST);
        assert!(used(most).is_suspension());
        assert!(!used(most + 1).is_suspension());
    }

    #[test]
    fn a_witness_that_waited_for_a_processor_knows_of_no_suspension() {
        let waited = |waited| Overslept { waited, ..STOPPED };
        assert!(waited(STOPPED.late - LEAST - 1).is_suspension());
        assert!(!waited(STOPPED.late - LEAST).is_suspension());
        assert!(!waited(u64::MAX).is_suspension());
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

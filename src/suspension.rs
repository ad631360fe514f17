//! Floor 1: records when the whole process was suspended, and when the sentinel waited for a processor.

use std::collections::VecDeque;

use crate::clock::Clock;
use crate::sync::Lock;

/// The shortest suspension. A late timer explains shorter ones.
pub(crate) const MIN_NANOS: u64 = 5_000_000;
/// Suspensions that are kept. A poll that lasts for more of them has stalled anyway.
const MAX_KEPT: usize = 16;

/// The times in which the process, or the sentinel, did not run.
pub(crate) struct Suspensions {
    past: Lock<VecDeque<Suspension>>,
}

/// Its two moments are raw readings of the clock.
struct Suspension {
    from: u64,
    noticed: u64,
    nanos: u64,
}

/// The suspensions of this process. The sentinel and the ticker were silent in each: see [`liveness`](crate::liveness).
pub(crate) static SUSPENSIONS: Suspensions = Suspensions::new();

/// The delays of the sentinel for want of a processor, its own or that of a thread that it waited for.
///
/// A thread that was not scheduled may have held a lock. Other delays of the sentinel excuse no poll.
pub(crate) static DELAYS: Suspensions = Suspensions::new();

/// The facts about a sleep of the sentinel or the ticker that took too long. Nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Overslept {
    /// The time beyond the planned end.
    pub(crate) late: u64,
    /// The time that the thread waited for a processor.
    pub(crate) waited: u64,
    /// The time in which the other thread gave no sign of life.
    pub(crate) silence: u64,
    /// The processor time of all other threads, if it is known.
    pub(crate) used: Option<u64>,
    /// The time in which the thread slept or waited as planned. The other threads may have run then.
    pub(crate) excused: u64,
    /// The number of processors.
    pub(crate) processors: u64,
}

impl Overslept {
    /// Returns whether the whole process was suspended. The lateness of one thread is no evidence: see
    /// [`liveness`](crate::liveness).
    pub(crate) fn is_suspension(&self) -> bool {
        // Timers are late by less than this, so the silences of the two threads may differ by it.
        const LATE: u64 = 1_000_000;
        let unexplained = self.late.saturating_sub(self.waited);
        let is_silent = self.silence.saturating_add(LATE) >= unexplained;
        // A stopped process uses no processor. Before the stop and after it, the process may have run on all processors.
        let ran = self.excused.saturating_add(MIN_NANOS);
        let most = ran.saturating_mul(self.processors);
        unexplained > MIN_NANOS && is_silent && self.used.is_none_or(|used| used <= most)
    }
}

impl Suspensions {
    const fn new() -> Self {
        Self {
            past: Lock::new(VecDeque::new()),
        }
    }

    /// Records `nanos` between two moments in which nothing ran. Merges overlapping records, which two threads may make
    /// of one suspension.
    pub(crate) fn record(&self, clock: &Clock, from: u64, noticed: u64, nanos: u64) {
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
        if past.len() == MAX_KEPT {
            past.pop_front();
        }
        past.push_back(new);
    }

    /// Returns an upper bound of the nanoseconds since `start` in which nothing ran, as far as it was noticed.
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
    fn suspended_since_a_start_leaves_out_earlier_suspensions() {
        let (suspensions, clock) = (Suspensions::new(), clock());
        suspensions.record(&clock, 90, 100, 7);
        suspensions.record(&clock, 180, 200, 11);
        assert_eq!(suspensions.since(50), 18);
        assert_eq!(suspensions.since(100), 11);
        assert_eq!(suspensions.since(200), 0);
        for n in 0..100 {
            suspensions.record(&clock, 300 + n, 301 + n, 1);
        }
        assert_eq!(suspensions.since(0), MAX_KEPT as u64);
    }

    const MS: u64 = 1_000_000;

    /// A process of two processors that was stopped for two seconds in a sleep of 10 ms.
    const STOPPED: Overslept = Overslept {
        late: 1_995 * MS,
        waited: 2 * MS,
        silence: 2_005 * MS,
        used: Some(20 * MS),
        excused: 12 * MS,
        processors: 2,
    };

    #[test]
    fn late_thread_of_a_stopped_process_notices_a_suspension() {
        assert!(STOPPED.is_suspension());
        let unknown = Overslept {
            used: None,
            ..STOPPED
        };
        assert!(unknown.is_suspension());
    }

    #[test]
    fn late_thread_alone_is_no_suspension() {
        // The other one gave signs of life every 20 ms.
        let silence = 20 * MS;
        assert!(!Overslept { silence, ..STOPPED }.is_suspension());
    }

    #[test]
    fn late_thread_while_others_ran_is_no_suspension() {
        let used = |used| Overslept {
            used: Some(used),
            ..STOPPED
        };
        let most = 2 * (12 * MS + MIN_NANOS);
        assert!(used(most).is_suspension());
        assert!(!used(most + 1).is_suspension());
    }

    #[test]
    fn late_thread_that_waited_for_a_cpu_notices_no_suspension() {
        let waited = |waited| Overslept { waited, ..STOPPED };
        assert!(waited(STOPPED.late - MIN_NANOS - 1).is_suspension());
        assert!(!waited(STOPPED.late - MIN_NANOS).is_suspension());
        assert!(!waited(u64::MAX).is_suspension());
    }

    #[test]
    fn suspension_noticed_by_two_threads_counts_once() {
        let (suspensions, clock) = (Suspensions::new(), clock());
        suspensions.record(&clock, 100, 200, 100);
        suspensions.record(&clock, 150, 210, 60);
        assert_eq!(suspensions.since(0), 110);
        suspensions.record(&clock, 90, 220, 130);
        assert_eq!(suspensions.since(0), 130);
        suspensions.record(&clock, 220, 230, 10);
        assert_eq!(suspensions.since(0), 140);
    }
}

//! The sentinel's own sleep: one that took longer than it should, and not because the sentinel waited
//! for a processor, means that the whole process was not run.

use std::time::Duration;

use crate::clock::Clock;
use crate::proc::Schedstat;
use crate::suspension::{LEAST, SUSPENSIONS};
use crate::sys::Thread;

pub(super) struct Oversleep {
    clock: Clock,
    /// The sentinel's own account. Opened on its thread.
    schedstat: Option<Option<Schedstat>>,
    waited: Option<u64>,
}

impl Oversleep {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            schedstat: None,
            waited: None,
        }
    }

    /// Sleeps at most for `nap`, and notes a suspension if it took much longer.
    pub(super) fn nap(&mut self, nap: Duration) {
        let before = self.clock.raw();
        std::thread::park_timeout(nap);
        let now = self.clock.raw();
        let slept = self.clock.nanos_between(before, now);
        let waited = self.waited();
        let asked = u64::try_from(nap.as_nanos()).unwrap_or(u64::MAX);
        let suspended = slept.saturating_sub(asked).saturating_sub(waited);
        if suspended > LEAST {
            SUSPENSIONS.note(now, suspended);
        }
        SUSPENSIONS.looked(now);
    }

    /// After a sleep without a limit: what was meanwhile is no suspension.
    pub(super) fn awake(&mut self) {
        self.waited();
        SUSPENSIONS.looked(self.clock.raw());
    }

    /// For how long this thread has waited for a processor since the last call.
    fn waited(&mut self) -> u64 {
        let open = || Schedstat::open(&Thread::current()?);
        let schedstat = self.schedstat.get_or_insert_with(open);
        let now = schedstat.as_ref().and_then(Schedstat::run_queue_wait);
        let before = std::mem::replace(&mut self.waited, now);
        // Where it is not accounted, everything may have been waiting.
        match (before, now) {
            (Some(before), Some(now)) => now.saturating_sub(before),
            _ => u64::MAX,
        }
    }
}

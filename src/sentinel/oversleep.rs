//! The sentinel's own sleep: one that took longer than it should, and not because the sentinel waited
//! for a processor, means that the whole process was not run.

use std::time::Duration;

use crate::clock::{Clock, nanos_of};
use crate::proc::Schedstat;
use crate::suspension::{DELAYS, LEAST, SUSPENSIONS};
use crate::sys::Thread;

pub(super) struct Oversleep {
    clock: Clock,
    /// The sentinel's own account. Opened on its thread.
    schedstat: Option<Option<Schedstat>>,
    /// When it was read, and what it said.
    latest: Option<(u64, u64)>,
    /// When the last nap ended.
    woke: Option<u64>,
    /// Whether that was late.
    was_late: bool,
}

/// How old the reading may be that a wait is counted from, in nanoseconds, while no nap is late: then
/// next to nothing is waited, and a fresh one before every nap would cost more than the look after it.
const FRESH: u64 = 1_000_000_000;

/// A nap that is late by more than that, in nanoseconds, was late for a reason.
const LATE: u64 = 1_000_000;

/// No look takes so long, in nanoseconds, unless it was not run or waits for many threads' stacks.
const LONGEST_LOOK: u64 = 200_000_000;

impl Oversleep {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            schedstat: None,
            latest: None,
            woke: None,
            was_late: false,
        }
    }

    /// Sleeps at most for `nap`, and notes a suspension if it took much longer. False if somebody ended it
    /// before its time.
    pub(super) fn nap(&mut self, nap: Duration) -> bool {
        self.has_looked();
        let before = self.clock.raw();
        let is_fresh = |(at, _): (u64, u64)| self.clock.nanos_between(at, before) < FRESH;
        if self.was_late || !self.latest.is_some_and(is_fresh) {
            self.waited(before);
        }
        std::thread::park_timeout(nap);
        let now = self.clock.raw();
        let asked = nanos_of(nap);
        let slept = self.clock.nanos_between(before, now);
        self.was_late = slept > asked.saturating_add(LATE);
        self.note_if_late(before, now, asked, LEAST);
        self.woke = Some(now);
        SUSPENSIONS.looked(now);
        slept >= asked
    }

    /// Notes a suspension if what was done since the last nap took much longer than it does. Before
    /// anything is judged by what was seen.
    pub(super) fn has_looked(&mut self) {
        let now = self.clock.raw();
        self.note_if_late(self.woke.unwrap_or(now), now, 0, LONGEST_LOOK);
        self.woke = Some(now);
    }

    /// Notes a suspension if a stretch took longer than it should have by at least so much; or that nobody
    /// looked meanwhile.
    fn note_if_late(&mut self, from: u64, now: u64, expected: u64, least: u64) {
        let taken = self.clock.nanos_between(from, now);
        let late = taken.saturating_sub(expected);
        if late > least && late.saturating_sub(self.waited(now)) > least {
            // All of the stretch is nobody's: it may have begun with it, and what this thread has
            // waited is known only from a reading that may be older.
            SUSPENSIONS.note(now, taken);
        } else if late > LATE {
            DELAYS.note(now, late);
        }
    }

    /// After a sleep without a limit: what was meanwhile is no suspension.
    pub(super) fn awake(&mut self) {
        self.latest = None;
        self.woke = None;
        SUSPENSIONS.looked(self.clock.raw());
    }

    /// For how long this thread has waited for a processor since the last call. Where it is not
    /// accounted, everything may have been waiting.
    fn waited(&mut self, now: u64) -> u64 {
        let open = || Schedstat::open(&Thread::current()?);
        let schedstat = self.schedstat.get_or_insert_with(open);
        let wait = schedstat.as_ref().and_then(Schedstat::run_queue_wait);
        let before = std::mem::replace(&mut self.latest, wait.map(|wait| (now, wait)));
        match (before, wait) {
            (Some((_, before)), Some(wait)) => wait.saturating_sub(before),
            _ => u64::MAX,
        }
    }
}

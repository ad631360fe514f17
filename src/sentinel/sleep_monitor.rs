//! The naps of the two witnesses, and what it tools that one of them took too long.
//!
//! What holds up one thread (a debugger, a page fault, a lock of the kernel's) is no suspension of the
//! process. That takes evidence from three sides: a liveness overslept, and not for want of a processor;
//! the other liveness gave no sign of life in that time; and the processor time of all other threads stood
//! still.

use std::time::Duration;

use crate::clock::{Clock, nanos_of};
use crate::liveness::{Liveness, SENTINEL};
use crate::procfs::Schedstat;
use crate::suspension::{DELAYS, MIN_NANOS, Overslept, SUSPENSIONS};
use crate::sys;

/// One liveness, on its own thread.
pub(super) struct SleepMonitor {
    clock: Clock,
    own: &'static Liveness,
    other: &'static Liveness,
    /// How many threads run at once.
    processors: u64,
    /// This thread's own account. Opened on its thread.
    schedstat: Option<Option<Schedstat>>,
    /// When it was read, and what it said.
    latest: Option<(u64, u64)>,
    nap: Option<Nap>,
    /// Whether it ended late.
    was_late: bool,
}

/// The latest one.
#[derive(Clone, Copy)]
struct Nap {
    from: u64,
    /// When it ended, or when that was last compared with the clock.
    to: u64,
    /// The processor time of the other threads before it.
    others: Option<u64>,
}

/// How old the reading may be that a wait is counted from, in nanoseconds, while no nap is late: then
/// next to nothing is waited, and a fresh one before every nap would cost more than the look after it.
const FRESH: u64 = 1_000_000_000;

/// A nap that is late by more than that, in nanoseconds, was late for a reason.
const LATE: u64 = 1_000_000;

impl SleepMonitor {
    pub(super) fn new(clock: Clock, own: &'static Liveness, other: &'static Liveness) -> Self {
        own.register();
        let processors = std::thread::available_parallelism();
        Self {
            clock,
            own,
            other,
            processors: processors.map_or(1, |processors| processors.get() as u64),
            schedstat: None,
            latest: None,
            nap: None,
            was_late: false,
        }
    }

    /// Sleeps at most for `nap`, and notes a suspension if there was one. False if another thread ended
    /// it before its time.
    pub(super) fn nap(&mut self, nap: Duration) -> bool {
        let before = self.clock.raw();
        let asked = nanos_of(nap);
        self.own.will_nap(before, asked);
        let is_fresh = |(at, _): (u64, u64)| self.clock.nanos_between(at, before) < FRESH;
        if self.was_late || !self.latest.is_some_and(is_fresh) {
            self.waited(before);
        }
        let others = self.others_time();
        std::thread::park_timeout(nap);
        let now = self.clock.raw();
        let slept = self.clock.nanos_between(before, now);
        self.nap = Some(Nap {
            from: before,
            to: now,
            others,
        });
        self.was_late = slept > asked.saturating_add(LATE);
        if self.was_late {
            self.note_late(before, now, asked, others);
        }
        self.own.runs(now);
        slept >= asked
    }

    fn note_late(&mut self, before: u64, now: u64, asked: u64, others: Option<u64>) {
        let slept = self.clock.nanos_between(before, now);
        let late = slept - asked;
        if late > MIN_NANOS {
            self.own.overslept(before, now);
        }
        let waited = self.waited(now);
        let overslept = Overslept {
            late,
            waited,
            silence: self.other.silence_in(&self.clock, before, now),
            used: self.used_since(others),
            excused: asked.saturating_add(waited),
            processors: self.processors,
        };
        if overslept.is_suspension() {
            // No thread ran in all of the stretch: it may have begun with it, and what this thread has
            // waited is known only from a reading that may be older.
            SUSPENSIONS.record(&self.clock, before, now, slept);
        } else {
            self.note_delay(before, now, late.min(waited));
        }
    }

    /// After the sentinel's look. A look has no time by which it must end, so what makes it long is no
    /// suspension; but one in which the other liveness overslept a nap may have been.
    pub(super) fn has_looked(&mut self) {
        let now = self.clock.raw();
        let Some(nap) = self.nap else { return };
        self.nap = Some(Nap { to: now, ..nap });
        let taken = self.clock.nanos_between(nap.to, now);
        if taken <= LATE {
            return;
        }
        let waited = self.waited(now);
        let overdue = self.other.overdue(&self.clock, now).min(taken);
        let before = self.clock.nanos_between(nap.from, nap.to);
        let excused = before.saturating_add(self.other.nap());
        let overslept = Overslept {
            late: overdue,
            waited,
            silence: overdue,
            used: self.used_since(nap.others),
            excused: excused.saturating_add(waited),
            processors: self.processors,
        };
        if overslept.is_suspension() {
            SUSPENSIONS.record(&self.clock, nap.to, now, taken);
        } else {
            self.note_delay(nap.to, now, taken.min(waited));
        }
    }

    /// The ticker looks at nothing, so only the sentinel's delays leave polls unseen.
    fn note_delay(&self, from: u64, now: u64, nanos: u64) {
        if nanos > LATE && std::ptr::eq(self.own, &SENTINEL) {
            DELAYS.record(&self.clock, from, now, nanos);
        }
    }

    /// How much processor time the other threads used since a reading.
    fn used_since(&self, then: Option<u64>) -> Option<u64> {
        Some(self.others_time()?.saturating_sub(then?))
    }

    /// Before a sleep without a limit.
    pub(super) fn will_sleep(&self) {
        self.own.will_sleep(self.clock.raw());
    }

    /// After it: the time in it is no suspension.
    pub(super) fn awake(&mut self) {
        self.latest = None;
        self.nap = None;
        self.own.runs(self.clock.raw());
    }

    /// For how long this thread has waited for a processor since the last call. Where it is not
    /// accounted, everything may have been waiting.
    fn waited(&mut self, now: u64) -> u64 {
        let own = self.own;
        let open = || Schedstat::open(own.thread()?);
        let schedstat = self.schedstat.get_or_insert_with(open);
        let wait = schedstat.as_ref().and_then(Schedstat::run_queue_wait);
        let before = std::mem::replace(&mut self.latest, wait.map(|wait| (now, wait)));
        match (before, wait) {
            (Some((_, before)), Some(wait)) => wait.saturating_sub(before),
            _ => u64::MAX,
        }
    }

    /// The processor time of all threads but this one.
    fn others_time(&self) -> Option<u64> {
        let all = sys::process_cpu_time()?;
        Some(all.saturating_sub(self.own.thread()?.cpu_time()?))
    }
}

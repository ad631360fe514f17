//! Monitors the sleeps of the sentinel and the ticker, and detects suspensions by sleeps that took too long.
//!
//! A debugger, a page fault or a lock of the kernel may hold up one thread, which is no suspension of the process. A
//! suspension takes three pieces of evidence. One of the two threads overslept, and not for want of a processor. The other
//! thread gave no sign of life in that time. The processor time of all other threads did not advance.

use std::time::Duration;

use crate::clock::{Clock, nanos_of};
use crate::liveness::{Liveness, SENTINEL};
use crate::procfs::Schedstat;
use crate::suspension::{DELAYS, MIN_NANOS, Overslept, SUSPENSIONS};
use crate::sys;

/// Monitors the sleeps of the thread that owns it.
pub(super) struct SleepMonitor {
    clock: Clock,
    own: &'static Liveness,
    other: &'static Liveness,
    /// The number of processors.
    processors: u64,
    /// The scheduler's counts of this thread, opened on the thread itself.
    schedstat: Option<Option<Schedstat>>,
    /// The time of the latest reading of these counts, and its wait.
    latest: Option<(u64, u64)>,
    sleep: Option<Sleep>,
    /// Whether the latest sleep ended late.
    was_late: bool,
}

/// The latest sleep.
#[derive(Clone, Copy)]
struct Sleep {
    from: u64,
    /// The end, or the latest comparison with the clock after it.
    to: u64,
    /// The processor time of the other threads before the sleep.
    others: Option<u64>,
}

/// The age up to which a reading of the counts serves while no sleep is late. A new one before each sleep would cost more than
/// the scan after it.
const MAX_READING_AGE_NANOS: u64 = 1_000_000_000;

/// A sleep that is late by more than this has another reason than the timer.
const MAX_TIMER_DELAY_NANOS: u64 = 1_000_000;

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
            sleep: None,
            was_late: false,
        }
    }

    /// Sleeps for at most `at_most`, and records a suspension if there was one. Returns false if another thread
    /// ended it early.
    pub(super) fn sleep(&mut self, at_most: Duration) -> bool {
        let before = self.clock.raw();
        let asked = nanos_of(at_most);
        self.own.will_sleep(before, asked);
        let is_fresh =
            |(at, _): (u64, u64)| self.clock.nanos_between(at, before) < MAX_READING_AGE_NANOS;
        if self.was_late || !self.latest.is_some_and(is_fresh) {
            self.waited(before);
        }
        let others = self.others_time();
        std::thread::park_timeout(at_most);
        let now = self.clock.raw();
        let slept = self.clock.nanos_between(before, now);
        self.sleep = Some(Sleep {
            from: before,
            to: now,
            others,
        });
        self.was_late = slept > asked.saturating_add(MAX_TIMER_DELAY_NANOS);
        if self.was_late {
            self.record_late_sleep(before, now, asked, others);
        }
        self.own.runs(now);
        slept >= asked
    }

    fn record_late_sleep(&mut self, before: u64, now: u64, asked: u64, others: Option<u64>) {
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
            // The suspension may have begun with the sleep. The thread's own wait is known only since an older reading, so
            // the record covers the whole sleep.
            SUSPENSIONS.record(&self.clock, before, now, slept);
        } else {
            self.record_delay(before, now, late.min(waited));
        }
    }

    /// Records a suspension or delay during a scan. The sentinel calls it after each scan.
    ///
    /// A scan has no planned end, so a long scan alone is no suspension. It may have been one if the other thread overslept
    /// in that time.
    pub(super) fn after_scan(&mut self) {
        let now = self.clock.raw();
        let Some(sleep) = self.sleep else { return };
        self.sleep = Some(Sleep { to: now, ..sleep });
        let taken = self.clock.nanos_between(sleep.to, now);
        if taken <= MAX_TIMER_DELAY_NANOS {
            return;
        }
        let waited = self.waited(now);
        let overdue = self.other.overdue(&self.clock, now).min(taken);
        let before = self.clock.nanos_between(sleep.from, sleep.to);
        let excused = before.saturating_add(self.other.sleep_nanos());
        let overslept = Overslept {
            late: overdue,
            waited,
            silence: overdue,
            used: self.used_since(sleep.others),
            excused: excused.saturating_add(waited),
            processors: self.processors,
        };
        if overslept.is_suspension() {
            SUSPENSIONS.record(&self.clock, sleep.to, now, taken);
        } else {
            self.record_delay(sleep.to, now, taken.min(waited));
        }
    }

    /// Records a delay of the sentinel. The ticker scans nothing, so its delays leave no poll unseen.
    fn record_delay(&self, from: u64, now: u64, nanos: u64) {
        if nanos > MAX_TIMER_DELAY_NANOS && std::ptr::eq(self.own, &SENTINEL) {
            DELAYS.record(&self.clock, from, now, nanos);
        }
    }

    /// Returns the processor time that the other threads used since a reading.
    fn used_since(&self, then: Option<u64>) -> Option<u64> {
        Some(self.others_time()?.saturating_sub(then?))
    }

    /// Announces that the thread parks without a time limit.
    pub(super) fn will_park(&self) {
        self.own.will_park(self.clock.raw());
    }

    /// Ends a park without a time limit, which is no suspension.
    pub(super) fn after_park(&mut self) {
        self.latest = None;
        self.sleep = None;
        self.own.runs(self.clock.raw());
    }

    /// Returns the nanoseconds that this thread waited for a CPU since the last call. `u64::MAX` if they are unknown.
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

    /// Returns the processor time of all threads but this one.
    fn others_time(&self) -> Option<u64> {
        let all = sys::process_cpu_time()?;
        Some(all.saturating_sub(self.own.thread()?.cpu_time()?))
    }
}

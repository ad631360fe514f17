//! Runs one audit: each poll goes through it.

use std::panic::Location;
use std::task::{Context, Poll};
use std::time::Duration;

use super::counting_waker::CountingWaker;
use super::origin::Origin;
use super::records::{AuditRecord, TimedPoll};
use super::sentinel_hook::{AuditSlots, HOOK, PublishedPoll};
use super::thread_times::Stopwatch;

/// The budget without an explicit one: the default of a watchdog.
pub(super) const DEFAULT_BUDGET: Duration = Duration::from_millis(10);

/// An audit under way.
pub(super) struct Auditor {
    record: AuditRecord,
    slots: AuditSlots,
    waker: CountingWaker,
}

impl Auditor {
    /// Begins an audit. The sentinel diagnoses polls over the budget.
    pub(super) fn new(
        origin: Origin,
        location: &'static Location<'static>,
        budget: Duration,
    ) -> Self {
        Self {
            record: AuditRecord::new(origin, location, budget),
            slots: AuditSlots::new(budget),
            waker: CountingWaker::default(),
        }
    }

    /// Sets another budget.
    pub(super) fn set_budget(&mut self, budget: Duration) {
        self.record.budget = budget;
        self.slots = AuditSlots::new(budget);
    }

    /// Makes one poll. Inlined, so that the stack of the poll begins in the function that calls this.
    #[inline(always)]
    pub(super) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let waker = self.waker.waker(cx.waker());
        let mut running = self.begin();
        let polled = poll(&mut Context::from_waker(&waker));
        running.yielded = polled.is_pending();
        polled
    }

    /// Times a section that is no poll like one.
    #[cfg(feature = "tower")]
    #[inline(always)]
    pub(super) fn run<T>(&mut self, section: impl FnOnce() -> T) -> T {
        let _running = self.begin();
        section()
    }

    #[inline(always)]
    fn begin(&mut self) -> RunningPoll<'_> {
        let stopwatch = Stopwatch::start(&HOOK.clock);
        let published = self.slots.begin(self.record.location, stopwatch.start);
        RunningPoll {
            record: &mut self.record,
            stopwatch,
            published,
            yielded: false,
            was_panicking: std::thread::panicking(),
        }
    }

    /// Returns the record at the end of the audit.
    pub(super) fn finish(self) -> AuditRecord {
        let mut record = self.record;
        record.wake_ups = self.waker.wake_ups();
        record
    }
}

/// A running poll. Its drop ends it, after a panic too.
struct RunningPoll<'a> {
    record: &'a mut AuditRecord,
    stopwatch: Stopwatch,
    published: PublishedPoll,
    yielded: bool,
    was_panicking: bool,
}

impl Drop for RunningPoll<'_> {
    fn drop(&mut self) {
        let end = HOOK.clock.raw();
        self.published.withdraw();
        // Reads the counters first, because they count until now.
        let times = self.stopwatch.stop(&HOOK.clock, end);
        let findings = self.published.findings(end);
        let ended = TimedPoll {
            times: times.with_disturbance(findings.disturbed),
            yielded: self.yielded,
            panicked: std::thread::panicking() && !self.was_panicking,
            start: self.stopwatch.start,
            end,
        };
        self.record.add(&ended, findings);
    }
}

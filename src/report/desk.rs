//! Where slow polls come in, from the worker that was held or from the sentinel while it still is:
//! decide, describe, hand over, return.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::later;
use super::outlet::{Outlet, Report, reporting};
use super::slow_poll::{Context, Path, Phase, SlowPoll};
use crate::catch_panic::catch_panic;
use crate::cause::Cause;
use crate::cgroup;
use crate::clock::{Clock, nanos_of};
use crate::publish;
use crate::rate_limit::{Limiter, never_left_out_from};
use crate::runtime;
use crate::slot::{Diagnosis, Kind, ReportState};
use crate::sys;
use crate::watch::{Judge, OnSlow, Orders, Registry, Slow, Undecided, WatchCounters, name_of};

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// How much may be said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) per_second: u32,
}

/// The reporters of one watchdog, and what stands between them and a slow poll.
pub(crate) struct Desk {
    pub(super) outlets: Vec<Outlet>,
    /// For the steps of an escalation that call somebody.
    calls: Vec<Outlet>,
    /// To the archive, which is told everything that is told to anybody.
    archive: Outlet,
    limits: Limits,
    orders: Orders,
    pub(super) registry: Arc<Registry>,
    clock: Clock,
    me: Weak<Self>,
}

/// A poll or a worker that is reported.
pub(super) struct Admitted {
    pub(super) id: u64,
    /// How many were left out before it.
    pub(super) suppressed: u64,
}

impl Desk {
    pub(crate) fn new(
        outlets: Vec<Outlet>,
        calls: Vec<Outlet>,
        archive: Outlet,
        limits: Limits,
        orders: Orders,
        registry: Arc<Registry>,
        clock: Clock,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            outlets,
            calls,
            archive,
            limits,
            orders,
            registry,
            clock,
            me: me.clone(),
        })
    }

    pub(crate) fn flush(&self, timeout: Duration) -> bool {
        // The child of a fork has no thread that would hand anything over.
        if sys::is_forked() {
            return false;
        }
        // A time too far to be represented is no deadline.
        let deadline = Instant::now().checked_add(timeout);
        let outlets = self.outlets.iter().chain(&self.calls);
        let mut outlets = outlets.chain([&self.archive]);
        later::wait(deadline) && outlets.all(|outlet| outlet.flush(deadline))
    }

    /// Decides whether a poll or a worker is reported that has `lasted` for this number of nanoseconds. The limit is on
    /// polls and workers, each with all of its reports; nothing that lasts long is left out.
    ///
    /// `None` counts nothing: it may be asked for again. [`leave_out`](Self::leave_out) counts what was never
    /// reported, once it has ended.
    pub(super) fn admit(
        &self,
        limiter: &Limiter,
        told: ReportState,
        lasted: u64,
        budget: u64,
    ) -> Option<Admitted> {
        if let ReportState::Running { id } = told {
            return Some(Admitted { id, suppressed: 0 });
        }
        let per_second = self.limits.per_second;
        let is_long = per_second > 0 && lasted >= never_left_out_from(budget);
        (limiter.admits(self.clock.nanos(), per_second) || is_long).then(|| Admitted {
            id: next_id(),
            suppressed: limiter.take_left_out(),
        })
    }

    /// Counts a poll or a worker that the limit left out.
    pub(super) fn leave_out(&self, limiter: &Limiter) {
        limiter.leave_out(1);
        self.registry.unreported.rate_limited.fetch_add(1, Relaxed);
    }

    /// Offers a report to every reporter, and says how many of the user's had no place for it.
    pub(super) fn offer(&self, report: &Report) -> usize {
        // Where it has no room, the culprits have one report less. That is no report lost to anybody.
        self.archive.offer(report.clone());
        let offers = self
            .outlets
            .iter()
            .map(|outlet| outlet.offer(report.clone()));
        offers.filter(|taken| !taken).count()
    }

    fn hand_over(&self, counters: &WatchCounters, slow: SlowPoll) {
        let suppressed = slow.suppressed;
        let refused = self.offer(&Report::Slow(Arc::new(slow)));
        self.registry
            .unreported
            .dropped
            .fetch_add(refused as u64, Relaxed);
        if refused > 0 && refused == self.outlets.len() {
            // Nobody got to know what this one would have said of those before it.
            counters.reports.leave_out(suppressed);
        }
    }

    /// Counts a slow poll under its cause. False if it is nobody's fault, or was declared to be
    /// allowed: then it is not to be told.
    fn count(&self, undecided: Option<Undecided>, slow: &Slow, cause: &Cause) -> bool {
        let Some(undecided) = undecided else {
            return false;
        };
        undecided.decide(cause);
        let unreported = &self.registry.unreported;
        let left_out = match cause {
            Cause::Suspended => &unreported.suspended,
            Cause::Starved if cgroup::was_throttled(Duration::from_nanos(slow.elapsed)) => {
                &unreported.throttled
            }
            Cause::Starved => &unreported.starved,
            _ if slow.allowed => &unreported.allowed,
            _ => return true,
        };
        left_out.fetch_add(1, Relaxed);
        false
    }

    fn finished(
        &self,
        counters: &WatchCounters,
        undecided: Option<Undecided>,
        slow: Slow,
        told: ReportState,
        found: Diagnosis,
        context: impl FnOnce() -> Context,
    ) {
        let is_to_be_told = self.count(undecided, &slow, &found.cause);
        // A poll that was reported while it ran is reported to have ended, whatever it turned out to be.
        if !is_to_be_told && !matches!(told, ReportState::Running { .. }) {
            return;
        }
        let Some(Admitted { id, suppressed }) =
            self.admit(&counters.reports, told, slow.charged, nanos_of(slow.budget))
        else {
            return self.leave_out(&counters.reports);
        };
        let context = context();
        let report = SlowPoll {
            phase: Phase::Finished,
            task: context.task,
            suppressed,
            context,
            ..running(counters, id, slow, found)
        };
        self.hand_over(counters, report);
    }

    /// The sentinel will say why it was slow; only this thread can say in which span it was.
    fn finish_later(
        &self,
        counters: &Arc<WatchCounters>,
        undecided: Option<Undecided>,
        slow: Slow,
        told: ReportState,
        judge: Box<dyn FnOnce() -> Diagnosis + Send>,
    ) {
        let (counters, context) = (Arc::clone(counters), Context::here());
        // It is kept until then: a watchdog that ends before has its last polls counted and told.
        let me = self.me.upgrade();
        later::leave(Box::new(move || {
            if let Some(desk) = me {
                desk.finished(&counters, undecided, slow, told, judge(), || context);
            }
        }));
    }

    fn stalled(
        &self,
        counters: &WatchCounters,
        slow: Slow,
        found: Diagnosis,
        told: &mut ReportState,
    ) {
        let Some(Admitted { id, suppressed }) = self.admit(
            &counters.reports,
            *told,
            slow.charged,
            nanos_of(slow.budget),
        ) else {
            *told = ReportState::Suppressed;
            return;
        };
        *told = ReportState::Running { id };
        let report = SlowPoll {
            suppressed,
            ..running(counters, id, slow, found)
        };
        self.hand_over(counters, report);
    }
}

impl OnSlow for Desk {
    fn on_slow(&self, counters: &Arc<WatchCounters>, slow: Slow, told: ReportState, judge: Judge) {
        if slow.counts {
            publish::slow_poll(counters, slow.elapsed);
        }
        let undecided = slow.counts.then(|| Undecided::new(counters));
        let handle = || match judge {
            Judge::Known(found) => {
                self.finished(counters, undecided, slow, told, found, Context::here)
            }
            Judge::Later(judge) => self.finish_later(counters, undecided, slow, told, judge),
        };
        let handled = reporting(|| catch_panic(handle));
        if handled.is_none() {
            self.registry.unreported.reentrant.fetch_add(1, Relaxed);
        }
    }

    fn on_stall(
        &self,
        counters: &WatchCounters,
        slow: Slow,
        found: Diagnosis,
        told: &mut ReportState,
    ) {
        self.stalled(counters, slow, found, told);
    }

    fn on_escalation(
        &self,
        counters: &WatchCounters,
        slow: Slow,
        found: Diagnosis,
        told: &mut ReportState,
        call: Option<usize>,
    ) {
        let id = match *told {
            ReportState::Running { id } => id,
            _ => next_id(),
        };
        *told = ReportState::Running { id };
        let report = running(counters, id, slow, found);
        match call {
            Some(number) => {
                let outlet = self.calls.get(number);
                let taken =
                    outlet.is_some_and(|outlet| outlet.offer(Report::Slow(Arc::new(report))));
                self.registry
                    .unreported
                    .dropped
                    .fetch_add(u64::from(!taken), Relaxed);
            }
            None => self.hand_over(counters, report),
        }
    }

    fn orders(&self) -> &Orders {
        &self.orders
    }
}

/// The report of a poll that has ended, for whoever asked for it rather than for the reporters.
#[cfg(feature = "testing")]
pub(crate) fn finished(counters: &WatchCounters, slow: Slow, found: Diagnosis) -> SlowPoll {
    SlowPoll {
        phase: Phase::Finished,
        ..running(counters, next_id(), slow, found)
    }
}

pub(super) fn next_id() -> u64 {
    NEXT_ID.fetch_add(1, Relaxed)
}

/// The report of a poll of which only other threads know, while it runs.
fn running(counters: &WatchCounters, id: u64, slow: Slow, found: Diagnosis) -> SlowPoll {
    SlowPoll {
        id,
        phase: Phase::Running,
        kind: slow.kind,
        watch: Arc::clone(&counters.name),
        path: Path::new(slow.outer.into_iter().filter_map(name_of).collect()),
        elapsed: Duration::from_nanos(slow.elapsed),
        charged: Duration::from_nanos(slow.charged),
        budget: slow.budget,
        cause: found.cause,
        waits_for: found.waits_for,
        split: found.split,
        // An earlier look may have had it.
        no_stack: match &found.stack {
            Some(stack) if stack.is_complete() => None,
            _ => found.no_stack,
        },
        stack: found.stack,
        others: found.others,
        allowance: slow.broken,
        handed_over: slow.kind == Kind::Contained || found.is_handed_over,
        location: slow.location,
        thread: slow.thread,
        task: None,
        impact: runtime::impact_of(slow.slot),
        suppressed: 0,
        slot: slow.slot,
        seq: slow.seq,
        context: Context::none(),
    }
}

//! Turns a slow poll into a report: count its cause, apply the rate limit, describe it, and queue it.
//!
//! The poll's own thread calls this when the poll has ended, and the sentinel calls it while the poll is stalled.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::deferred;
use super::reporter_thread::{Report, ReporterThread, reporting};
use crate::catch_panic::catch_panic;
use crate::cgroup;
use crate::clock::{Clock, nanos_of};
use crate::publish;
use crate::rate_limit::{Limiter, never_suppressed_from};
use crate::report::{Cause, Path, Phase, PollContext, SectionKind, SlowPoll};
use crate::runtime;
use crate::slot::{Diagnosis, ReportState};
use crate::sys;
use crate::watch::{
    EndDiagnosis, Overrun, Policy, Registry, SlowPollSink, Undecided, WatchCounters, name_of,
};

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// The threads that the dispatcher sends reports to.
pub(crate) struct Reporters {
    /// Those of the user, and the default one.
    pub(crate) all: Vec<ReporterThread>,
    /// Those that a step of the escalation policy calls.
    pub(crate) escalation: Vec<ReporterThread>,
    /// The one that gets every report, for culprits and the debug page.
    pub(crate) history: ReporterThread,
}

/// Sends the reports of one watchdog to its reporters.
pub(crate) struct Dispatcher {
    reporters: Reporters,
    /// The rate limit of each watch and each guarded runtime.
    reports_per_second: u32,
    policy: Policy,
    registry: Arc<Registry>,
    clock: Clock,
    this: Weak<Self>,
}

/// The rate limit's permission to report a poll or a worker.
pub(super) struct Admission {
    pub(super) id: u64,
    /// The number of polls or workers that the limit suppressed before this one.
    pub(super) suppressed: u64,
}

impl Dispatcher {
    pub(crate) fn new(
        reporters: Reporters,
        reports_per_second: u32,
        policy: Policy,
        registry: Arc<Registry>,
        clock: Clock,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            reporters,
            reports_per_second,
            policy,
            registry,
            clock,
            this: this.clone(),
        })
    }

    pub(crate) fn flush(&self, timeout: Duration) -> bool {
        // The child of a fork has no thread that could deliver anything.
        if sys::is_forked() {
            return false;
        }
        // A timeout beyond the clock's range is no deadline.
        let deadline = Instant::now().checked_add(timeout);
        let Reporters {
            all,
            escalation,
            history,
        } = &self.reporters;
        let mut threads = all.iter().chain(escalation).chain([history]);
        deferred::wait(deadline) && threads.all(|thread| thread.flush(deadline))
    }

    /// Applies the rate limit to a poll or a worker that has lasted for `nanos`.
    ///
    /// The limit counts polls and workers, each with all of its reports, and never suppresses what lasts long. `None`
    /// counts nothing, so the caller may ask again. [`suppress`](Self::suppress) counts it once it has ended.
    pub(super) fn admit(
        &self,
        limiter: &Limiter,
        state: ReportState,
        nanos: u64,
        budget_nanos: u64,
    ) -> Option<Admission> {
        if let ReportState::Running { id } = state {
            return Some(Admission { id, suppressed: 0 });
        }
        let per_second = self.reports_per_second;
        let is_long = per_second > 0 && nanos >= never_suppressed_from(budget_nanos);
        (limiter.admits(self.clock.nanos(), per_second) || is_long).then(|| Admission {
            id: next_id(),
            suppressed: limiter.take_suppressed(),
        })
    }

    /// Like [`admit`](Self::admit), for a poll or a worker that has not ended. Notes the answer in `state`.
    pub(super) fn admit_running(
        &self,
        limiter: &Limiter,
        state: &mut ReportState,
        nanos: u64,
        budget_nanos: u64,
    ) -> Option<Admission> {
        let admission = self.admit(limiter, *state, nanos, budget_nanos);
        *state = match &admission {
            Some(Admission { id, .. }) => ReportState::Running { id: *id },
            None => ReportState::Suppressed,
        };
        admission
    }

    /// Counts a poll or a worker that the rate limit suppressed.
    pub(super) fn suppress(&self, limiter: &Limiter) {
        limiter.suppress(1);
        self.registry.unreported.rate_limited.fetch_add(1, Relaxed);
    }

    /// Queues a report for every reporter. Counts those that have no room.
    pub(super) fn send(&self, limiter: &Limiter, report: Report) {
        // A full history misses one report in its sums, which no reporter notices. So it does not count.
        self.reporters.history.offer(report.clone());
        let reporters = &self.reporters.all;
        let refusals = reporters.iter().map(|thread| !thread.offer(report.clone()));
        let refused = refusals.filter(|is_refused| *is_refused).count();
        self.count_dropped(refused);
        if refused > 0 && refused == reporters.len() {
            // No reporter learns the number of suppressed polls from this report, so the next one has it.
            limiter.suppress(report.suppressed());
        }
    }

    fn count_dropped(&self, count: usize) {
        self.registry
            .unreported
            .dropped
            .fetch_add(count as u64, Relaxed);
    }

    /// Counts a slow poll under its cause. Returns whether to report it.
    fn count_cause(&self, undecided: Option<Undecided>, poll: &Overrun, cause: &Cause) -> bool {
        let Some(undecided) = undecided else {
            return false;
        };
        undecided.decide(cause);
        let unreported = &self.registry.unreported;
        let counter = match cause {
            Cause::Suspended => &unreported.suspended,
            Cause::Starved if cgroup::was_throttled(Duration::from_nanos(poll.elapsed_nanos)) => {
                &unreported.throttled
            }
            Cause::Starved => &unreported.starved,
            _ if poll.is_allowed => &unreported.allowed,
            _ => return true,
        };
        counter.fetch_add(1, Relaxed);
        false
    }

    fn finish(
        &self,
        counters: &WatchCounters,
        undecided: Option<Undecided>,
        poll: Overrun,
        state: ReportState,
        diagnosis: Diagnosis,
        context: impl FnOnce() -> PollContext,
    ) {
        let is_reportable = self.count_cause(undecided, &poll, &diagnosis.cause);
        // A poll that was reported while it ran also has a report of its end, whatever the cause turned out to be.
        if !is_reportable && !matches!(state, ReportState::Running { .. }) {
            return;
        }
        let limiter = &counters.reports;
        let budget_nanos = nanos_of(poll.budget);
        let Some(admission) = self.admit(limiter, state, poll.charged_nanos, budget_nanos) else {
            return self.suppress(limiter);
        };
        let context = context();
        let report = SlowPoll {
            phase: Phase::Finished,
            task: context.task,
            suppressed: admission.suppressed,
            context,
            ..running_report(counters, admission.id, poll, diagnosis)
        };
        self.send(limiter, Report::Slow(Arc::new(report)));
    }

    /// Leaves the diagnosis to the sentinel. The context is read now, because only this thread knows it.
    fn finish_later(
        &self,
        counters: &Arc<WatchCounters>,
        undecided: Option<Undecided>,
        poll: Overrun,
        state: ReportState,
        diagnose: Box<dyn FnOnce() -> Diagnosis + Send>,
    ) {
        let (counters, context) = (Arc::clone(counters), PollContext::current());
        // The job keeps the dispatcher alive, so the last polls of a watchdog that ends are counted and reported.
        let this = self.this.upgrade();
        deferred::defer(Box::new(move || {
            if let Some(this) = this {
                this.finish(&counters, undecided, poll, state, diagnose(), || context);
            }
        }));
    }
}

impl SlowPollSink for Dispatcher {
    fn on_slow_poll(
        &self,
        counters: &Arc<WatchCounters>,
        poll: Overrun,
        state: ReportState,
        diagnosis: EndDiagnosis,
    ) {
        if poll.is_slow {
            publish::record_slow_poll(counters, poll.elapsed_nanos);
        }
        let undecided = poll.is_slow.then(|| Undecided::new(counters));
        let handle = || match diagnosis {
            EndDiagnosis::Now(diagnosis) => {
                let context = PollContext::current;
                self.finish(counters, undecided, poll, state, diagnosis, context);
            }
            EndDiagnosis::Later(diagnose) => {
                self.finish_later(counters, undecided, poll, state, diagnose);
            }
        };
        let handled = reporting(|| catch_panic(handle));
        if handled.is_none() {
            self.registry.unreported.reentrant.fetch_add(1, Relaxed);
        }
    }

    fn on_stall(
        &self,
        counters: &WatchCounters,
        poll: Overrun,
        diagnosis: Diagnosis,
        state: &mut ReportState,
    ) {
        let limiter = &counters.reports;
        let budget_nanos = nanos_of(poll.budget);
        let admission = self.admit_running(limiter, state, poll.charged_nanos, budget_nanos);
        let Some(Admission { id, suppressed }) = admission else {
            return;
        };
        let report = SlowPoll {
            suppressed,
            ..running_report(counters, id, poll, diagnosis)
        };
        self.send(limiter, Report::Slow(Arc::new(report)));
    }

    fn on_escalation(
        &self,
        counters: &WatchCounters,
        poll: Overrun,
        diagnosis: Diagnosis,
        state: &mut ReportState,
        reporter: Option<usize>,
    ) {
        let id = match *state {
            ReportState::Running { id } => id,
            _ => next_id(),
        };
        *state = ReportState::Running { id };
        let report = Report::Slow(Arc::new(running_report(counters, id, poll, diagnosis)));
        match reporter {
            Some(index) => {
                let thread = self.reporters.escalation.get(index);
                let is_queued = thread.is_some_and(|thread| thread.offer(report));
                self.count_dropped(usize::from(!is_queued));
            }
            None => self.send(&counters.reports, report),
        }
    }

    fn policy(&self) -> &Policy {
        &self.policy
    }
}

/// Makes the report of a poll that has ended, for a test that audits it.
#[cfg(feature = "testing")]
pub(crate) fn finished_report(
    counters: &WatchCounters,
    poll: Overrun,
    diagnosis: Diagnosis,
) -> SlowPoll {
    SlowPoll {
        phase: Phase::Finished,
        ..running_report(counters, next_id(), poll, diagnosis)
    }
}

pub(super) fn next_id() -> u64 {
    NEXT_ID.fetch_add(1, Relaxed)
}

/// Makes the report of a running poll, from facts that other threads know.
fn running_report(
    counters: &WatchCounters,
    id: u64,
    poll: Overrun,
    diagnosis: Diagnosis,
) -> SlowPoll {
    SlowPoll {
        id,
        phase: Phase::Running,
        kind: poll.kind,
        watch: Arc::clone(&counters.name),
        path: Path::new(poll.outer_watches.into_iter().filter_map(name_of).collect()),
        elapsed: Duration::from_nanos(poll.elapsed_nanos),
        charged: Duration::from_nanos(poll.charged_nanos),
        budget: poll.budget,
        cause: diagnosis.cause,
        waiting_on: diagnosis.waiting_on,
        split: diagnosis.split,
        // The stack may be that of an earlier scan, which succeeded.
        no_stack: match &diagnosis.stack {
            Some(stack) if stack.is_complete() => None,
            _ => diagnosis.no_stack,
        },
        stack: diagnosis.stack,
        other_threads: diagnosis.other_threads,
        allowance: poll.exceeded_allowance,
        handed_over: poll.kind == SectionKind::Contained || diagnosis.is_handed_over,
        location: poll.location,
        thread: poll.thread,
        task: None,
        runtime_snapshot: runtime::snapshot_of(poll.slot),
        suppressed: 0,
        slot: poll.slot,
        seq: poll.seq,
        context: PollContext::none(),
    }
}

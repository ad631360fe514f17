//! One stalled poll: its record, when to diagnose it again, and how to report it.

use std::sync::Arc;
use std::time::Duration;

use super::stack_sampler::{STACK_RETRY_NANOS, StackSampler};
use crate::rate_limit::never_suppressed_from;
use crate::report::Allowance;
use crate::slot::{
    Allowances, BudgetStatus, Diagnosis, InFlightPoll, PollRecord, PollStack, ReportState, Slot,
};
use crate::stack::Stack;
use crate::watch::{Overrun, WatchCounters, WatchdogInner};

/// A stalled poll, with its thread, watch and watchdog.
pub(super) struct StalledPoll<'s> {
    pub(super) slot: &'s Slot,
    pub(super) stack: &'s PollStack,
    pub(super) status: &'s BudgetStatus,
    pub(super) watchdog: Arc<WatchdogInner>,
    pub(super) counters: Arc<WatchCounters>,
}

/// Requests for the stack of a thread that does not answer, before the next report tries again.
const MAX_STACK_TRIES: u32 = 64;

/// Returns the stack of now, unless an earlier one shows more.
fn better(now: Option<Stack>, earlier: Option<Stack>) -> Option<Stack> {
    match (now, earlier) {
        (Some(now), Some(earlier)) if earlier.is_complete() && !now.is_complete() => Some(earlier),
        (now, earlier) => now.or(earlier),
    }
}

impl StalledPoll<'_> {
    /// Returns the charged time at which to diagnose the poll again.
    pub(super) fn due(&self) -> u64 {
        self.with_record(|record| {
            let due = record.next_report_at.min(self.next_step_at(record));
            record.next_stack_at.map_or(due, |stack| due.min(stack))
        })
    }

    fn with_record<T>(&self, f: impl FnOnce(&mut PollRecord) -> T) -> T {
        f(self.slot.diagnostics().record(&self.status.poll))
    }

    /// Keeps the stack for the next report, and plans another request if the thread did not answer.
    pub(super) fn record_stack(&self, diagnosis: &Diagnosis) {
        self.with_record(|record| {
            record.late_stacks = match diagnosis.is_stack_late {
                true => record.late_stacks + 1,
                false => 0,
            };
            let is_worth_it = (1..MAX_STACK_TRIES).contains(&record.late_stacks);
            record.next_stack_at = is_worth_it.then(|| self.status.charged + STACK_RETRY_NANOS);
            if let Some(known) = &mut record.diagnosis {
                known.stack = better(diagnosis.stack.clone(), known.stack.take());
            }
        });
    }

    /// Returns the charged time at which to report or diagnose the poll again.
    pub(super) fn next_report_at(&self) -> u64 {
        self.with_record(|record| record.next_report_at)
    }

    /// Returns the charged time of the next escalation step.
    fn next_step_at(&self, record: &PollRecord) -> u64 {
        let steps = &self.watchdog.sink.policy().steps;
        let next = steps.get(record.steps_taken);
        next.filter(|_| !record.is_handed_over())
            .map_or(u64::MAX, |step| {
                let after = step.after_nanos.saturating_add(record.uncharged);
                after.max(record.next_step_at)
            })
    }

    /// Returns whether the thread has handed its worker over, in a contained poll or by `block_in_place`.
    ///
    /// The stack shows `block_in_place`. No escalation step is taken then.
    pub(super) fn has_handed_over(
        &self,
        sampler: Option<&StackSampler>,
        diagnosis: &Diagnosis,
    ) -> bool {
        let shows_it = |stack| sampler.is_some_and(|sampler| sampler.is_in_block_in_place(stack));
        let poll = &self.status.poll;
        self.stack.is_contained(poll)
            || diagnosis.stack.as_ref().is_some_and(shows_it)
            || self
                .slot
                .diagnostics()
                .existing_record(poll)
                .is_some_and(PollRecord::is_handed_over)
    }

    /// Postpones the next diagnosis to the time at which the code could be charged.
    pub(super) fn excuse(&self) {
        const MIN_WAIT_NANOS: u64 = 1_000_000;
        let wait = (self.status.poll.budget / 4).max(MIN_WAIT_NANOS);
        let next = self.status.charged.saturating_add(wait);
        self.with_record(|record| {
            record.next_report_at = record.next_report_at.max(next);
            record.next_step_at = record.next_report_at;
        });
    }

    pub(super) fn report(&self, diagnosis: &Diagnosis) {
        self.with_report_state(diagnosis, |state, poll, diagnosis| {
            let sink = &self.watchdog.sink;
            sink.on_stall(&self.counters, poll, diagnosis, state);
        });
        let BudgetStatus { charged, poll, .. } = *self.status;
        let doubled = charged.saturating_mul(2);
        let never_suppressed = never_suppressed_from(poll.budget);
        self.with_record(|record| {
            record.next_report_at = match record.report_state {
                ReportState::Suppressed if charged < never_suppressed => {
                    doubled.min(never_suppressed)
                }
                _ => doubled,
            };
        });
    }

    /// Calls `report`, unless the poll has ended. The poll's end waits until then, and reports after it.
    pub(super) fn with_report_state(
        &self,
        diagnosis: &Diagnosis,
        report: impl FnOnce(&mut ReportState, Overrun, Diagnosis),
    ) -> bool {
        let poll = &self.status.poll;
        let Some(mut diagnostics) = self.slot.lock_running(poll) else {
            return false;
        };
        let (Some(thread), Some(location)) = (diagnostics.thread(), poll.location) else {
            return false;
        };
        let overrun = Overrun {
            kind: poll.kind,
            elapsed_nanos: self.status.elapsed,
            charged_nanos: self.status.charged,
            budget: Duration::from_nanos(poll.budget),
            location,
            outer_watches: self.outer_watches(),
            thread,
            slot: Some(self.slot.index()),
            seq: Some(poll.seq),
            is_slow: true,
            is_allowed: false,
            exceeded_allowance: self.exceeded_allowance(&diagnostics.allowances),
        };
        let record = diagnostics.record(poll);
        let mut diagnosis = diagnosis.clone();
        let earlier = record.diagnosis.take().and_then(|earlier| earlier.stack);
        diagnosis.stack = better(diagnosis.stack, earlier);
        record.diagnosis = Some(Diagnosis {
            other_threads: Arc::default(),
            ..diagnosis.clone()
        });
        if record.report_state != ReportState::Ended {
            report(&mut record.report_state, overrun, diagnosis);
        }
        true
    }

    fn exceeded_allowance(&self, allowances: &Allowances) -> Option<Allowance> {
        let (clock, poll) = (&self.watchdog.clock, &self.status.poll);
        // Allowances are on the machine's clock, which cannot be compared with a mocked one.
        if !clock.is_real() {
            return None;
        }
        let now = clock.raw();
        let elapsed = |since| clock.nanos_between(since, now);
        allowances.exceeded(poll.seq, poll.start, &self.stack.seqs(), elapsed)
    }

    /// Returns the charged time without what the last scan attributed to no code: the age for escalation steps.
    pub(super) fn charged(&self) -> u64 {
        let diagnostics = self.slot.diagnostics();
        let record = diagnostics.existing_record(&self.status.poll);
        let uncharged = record.map_or(0, |record| record.uncharged);
        self.status.charged.saturating_sub(uncharged)
    }

    /// Returns the ids of the watches around, outermost first.
    fn outer_watches(&self) -> Vec<u64> {
        let is_outer = |poll: &&InFlightPoll| poll.seq != self.status.poll.seq;
        let outer = self.stack.iter().take_while(is_outer);
        let watches = outer.filter(|poll| !poll.kind.is_uncounted());
        watches.map(|poll| poll.watch).collect()
    }
}

//! One stall: what is noted of it, when to look at it again, and how it is told.

use std::sync::Arc;
use std::time::Duration;

use super::stacks::Taker;
use crate::rate_limit::never_left_out_from;
use crate::slot::{
    Allowance, BudgetStatus, Diagnosis, Exceptions, InFlightPoll, PollRecord, PollStack,
    ReportState, Slot,
};
use crate::stack::Stack;
use crate::watch::{Slow, WatchCounters, WatchdogInner};

/// A stall, and to whom it belongs.
pub(super) struct Stalled<'s> {
    pub(super) slot: &'s Slot,
    pub(super) nest: &'s PollStack,
    pub(super) budget_status: &'s BudgetStatus,
    pub(super) watchdog: Arc<WatchdogInner>,
    pub(super) counters: Arc<WatchCounters>,
}

/// How often a thread is asked for its stack that does not answer, before that is left to the next
/// report; and how many nanoseconds lie between.
const STACK_TRIES: u32 = 64;
const STACK_AGAIN: u64 = 5_000_000;

/// The stack to be told: that of now, unless an earlier one says more.
fn better(now: Option<Stack>, had: Option<Stack>) -> Option<Stack> {
    match (now, had) {
        (Some(now), Some(had)) if had.is_complete() && !now.is_complete() => Some(had),
        (now, had) => now.or(had),
    }
}

impl Stalled<'_> {
    /// When to look at it again.
    pub(super) fn due(&self) -> u64 {
        let due = self.again_at().min(self.next_step());
        let mut diagnostics = self.slot.diagnostics();
        let stack = diagnostics.note(&self.budget_status.poll).again_for_stack;
        stack.map_or(due, |stack| due.min(stack))
    }

    /// Keeps the stack for the next report. A thread that did not answer, because it was not run, is
    /// asked again before long.
    pub(super) fn note_stack(&self, finding: &Diagnosis) {
        let mut diagnostics = self.slot.diagnostics();
        let note = diagnostics.note(&self.budget_status.poll);
        note.late_stacks = match finding.is_stack_late {
            true => note.late_stacks + 1,
            false => 0,
        };
        let is_worth_it = (1..STACK_TRIES).contains(&note.late_stacks);
        note.again_for_stack = is_worth_it.then(|| self.budget_status.charged + STACK_AGAIN);
        if let Some(known) = &mut note.finding {
            known.stack = better(finding.stack.clone(), known.stack.take());
        }
    }

    /// When it is to be told again, or looked at.
    pub(super) fn again_at(&self) -> u64 {
        self.slot
            .diagnostics()
            .note(&self.budget_status.poll)
            .again_at
    }

    /// When the next step of its escalation is due.
    fn next_step(&self) -> u64 {
        let mut diagnostics = self.slot.diagnostics();
        let note = diagnostics.note(&self.budget_status.poll);
        let steps = &self.watchdog.slow.orders().steps;
        let next = steps.get(note.steps_taken);
        next.filter(|_| !note.is_handed_over())
            .map_or(u64::MAX, |step| {
                let after = step.after.saturating_add(note.uncharged);
                after.max(note.again_for_step)
            })
    }

    /// Whether the thread has handed its worker to another one: in a contained poll, or by
    /// `block_in_place`, which its stack shows. Then no step is taken.
    pub(super) fn has_handed_over(&self, taker: Option<&Taker>, finding: &Diagnosis) -> bool {
        let shows_it = |stack| taker.is_some_and(|taker| taker.is_in_block_in_place(stack));
        let poll = &self.budget_status.poll;
        self.nest.is_contained(poll)
            || finding.stack.as_ref().is_some_and(shows_it)
            || self
                .slot
                .diagnostics()
                .noted(poll)
                .is_some_and(PollRecord::is_handed_over)
    }

    /// Nobody's fault so far: looks again when it could be.
    pub(super) fn excuse(&self) {
        let wait = (self.budget_status.poll.budget / 4).max(1_000_000);
        let mut diagnostics = self.slot.diagnostics();
        let note = diagnostics.note(&self.budget_status.poll);
        note.again_at = note
            .again_at
            .max(self.budget_status.charged.saturating_add(wait));
        note.again_for_step = note.again_at;
    }

    pub(super) fn tell(&self, finding: &Diagnosis) {
        self.with_told(finding, |told, slow, finding| {
            self.watchdog
                .slow
                .on_stall(&self.counters, slow, finding, told);
        });
        let BudgetStatus {
            charged: own, poll, ..
        } = *self.budget_status;
        let doubled = own.saturating_mul(2);
        let never_left_out = never_left_out_from(poll.budget);
        let mut diagnostics = self.slot.diagnostics();
        let note = diagnostics.note(&poll);
        note.again_at = match note.told {
            ReportState::Suppressed if own < never_left_out => doubled.min(never_left_out),
            _ => doubled,
        };
    }

    /// Tells, if the poll has not ended meanwhile: who ends it waits, and tells after this.
    pub(super) fn with_told(
        &self,
        finding: &Diagnosis,
        tell: impl FnOnce(&mut ReportState, Slow, Diagnosis),
    ) -> bool {
        let poll = &self.budget_status.poll;
        let Some(mut diagnostics) = self.slot.hold(poll) else {
            return false;
        };
        let (Some(thread), Some(location)) = (diagnostics.thread(), poll.location) else {
            return false;
        };
        let slow = Slow {
            kind: poll.kind,
            elapsed: self.budget_status.elapsed,
            charged: self.budget_status.charged,
            budget: Duration::from_nanos(poll.budget),
            location,
            outer: self.outer(),
            thread,
            slot: Some(self.slot.index()),
            seq: Some(poll.seq),
            counts: true,
            allowed: false,
            broken: self.broken(&diagnostics.exceptions),
        };
        let note = diagnostics.note(poll);
        let mut finding = finding.clone();
        let had = note.finding.take().and_then(|finding| finding.stack);
        finding.stack = better(finding.stack, had);
        note.finding = Some(Diagnosis {
            others: Arc::default(),
            ..finding.clone()
        });
        if note.told != ReportState::Ended {
            tell(&mut note.told, slow, finding);
        }
        true
    }

    /// What was declared and not kept to.
    fn broken(&self, exceptions: &Exceptions) -> Option<Allowance> {
        let (clock, poll) = (&self.watchdog.clock, &self.budget_status.poll);
        // Readings of a mocked clock cannot be compared with the machine's.
        if !clock.is_real() {
            return None;
        }
        let now = clock.raw();
        let elapsed = |since| clock.nanos_between(since, now);
        exceptions.broken(poll.seq, poll.start, &self.nest.seqs(), elapsed)
    }

    /// How much of its own time is charged to it, as far as the last look knew. Time that is no code's fault counts
    /// for no step of its escalation.
    pub(super) fn charged(&self) -> u64 {
        let diagnostics = self.slot.diagnostics();
        let note = diagnostics.noted(&self.budget_status.poll);
        let uncharged = note.map_or(0, |note| note.uncharged);
        self.budget_status.charged.saturating_sub(uncharged)
    }

    /// The ids of the watches around it, outermost first.
    fn outer(&self) -> Vec<u64> {
        let is_outer = |poll: &&InFlightPoll| poll.seq != self.budget_status.poll.seq;
        let outer = self.nest.iter().take_while(is_outer);
        let watches = outer.filter(|poll| !poll.kind.is_off_the_books());
        watches.map(|poll| poll.watch).collect()
    }
}

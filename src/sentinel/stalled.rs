//! One stall: what is noted of it, when to look at it again, and how it is told.

use std::sync::Arc;
use std::time::Duration;

use super::stacks::Taker;
use crate::limit::never_left_out_from;
use crate::slot::{Allowance, Exceptions, Finding, InFlight, Nest, Note, Slot, Standing, Told};
use crate::stack::Stack;
use crate::watch::{Slow, WatchCounters, WatchdogInner};

/// A stall, and to whom it belongs.
pub(super) struct Stalled<'s> {
    pub(super) slot: &'s Slot,
    pub(super) nest: &'s Nest,
    pub(super) standing: &'s Standing,
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
        let mut margin = self.slot.margin();
        let stack = margin.note(&self.standing.poll).again_for_stack;
        stack.map_or(due, |stack| due.min(stack))
    }

    /// Keeps the stack for the next report. A thread that did not answer, because it was not run, is
    /// asked again before long.
    pub(super) fn note_stack(&self, finding: &Finding) {
        let mut margin = self.slot.margin();
        let note = margin.note(&self.standing.poll);
        note.late_stacks = match finding.is_stack_late {
            true => note.late_stacks + 1,
            false => 0,
        };
        let is_worth_it = (1..STACK_TRIES).contains(&note.late_stacks);
        note.again_for_stack = is_worth_it.then(|| self.standing.own + STACK_AGAIN);
        if let Some(known) = &mut note.finding {
            known.stack = better(finding.stack.clone(), known.stack.take());
        }
    }

    /// When it is to be told again, or looked at.
    pub(super) fn again_at(&self) -> u64 {
        self.slot.margin().note(&self.standing.poll).again_at
    }

    /// When the next step of its escalation is due.
    fn next_step(&self) -> u64 {
        let mut margin = self.slot.margin();
        let note = margin.note(&self.standing.poll);
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
    pub(super) fn has_handed_over(&self, taker: Option<&Taker>, finding: &Finding) -> bool {
        let shows_it = |stack| taker.is_some_and(|taker| taker.is_in_block_in_place(stack));
        let poll = &self.standing.poll;
        self.nest.is_contained(poll)
            || finding.stack.as_ref().is_some_and(shows_it)
            || self
                .slot
                .margin()
                .noted(poll)
                .is_some_and(Note::is_handed_over)
    }

    /// Nobody's fault so far: looks again when it could be.
    pub(super) fn excuse(&self) {
        let wait = (self.standing.poll.budget / 4).max(1_000_000);
        let mut margin = self.slot.margin();
        let note = margin.note(&self.standing.poll);
        note.again_at = note.again_at.max(self.standing.own.saturating_add(wait));
        note.again_for_step = note.again_at;
    }

    pub(super) fn tell(&self, finding: &Finding) {
        self.with_told(finding, |told, slow, finding| {
            self.watchdog
                .slow
                .on_stall(&self.counters, slow, finding, told);
        });
        let Standing { own, poll, .. } = *self.standing;
        let doubled = own.saturating_mul(2);
        let never_left_out = never_left_out_from(poll.budget);
        let mut margin = self.slot.margin();
        let note = margin.note(&poll);
        note.again_at = match note.told {
            Told::LeftOut if own < never_left_out => doubled.min(never_left_out),
            _ => doubled,
        };
    }

    /// Tells, if the poll has not ended meanwhile: who ends it waits, and tells after this.
    pub(super) fn with_told(
        &self,
        finding: &Finding,
        tell: impl FnOnce(&mut Told, Slow, Finding),
    ) -> bool {
        let poll = &self.standing.poll;
        let Some(mut margin) = self.slot.hold(poll) else {
            return false;
        };
        let (Some(thread), Some(location)) = (margin.thread(), poll.location) else {
            return false;
        };
        let slow = Slow {
            kind: poll.kind,
            elapsed: self.standing.elapsed,
            own: self.standing.own,
            budget: Duration::from_nanos(poll.budget),
            location,
            outer: self.outer(),
            thread,
            slot: Some(self.slot.index()),
            opening: Some(poll.opening),
            counts: true,
            allowed: false,
            broken: self.broken(&margin.exceptions),
        };
        let note = margin.note(poll);
        let mut finding = finding.clone();
        let had = note.finding.take().and_then(|finding| finding.stack);
        finding.stack = better(finding.stack, had);
        note.finding = Some(Finding {
            others: Arc::default(),
            ..finding.clone()
        });
        if note.told != Told::Ended {
            tell(&mut note.told, slow, finding);
        }
        true
    }

    /// What was declared and not kept to.
    fn broken(&self, exceptions: &Exceptions) -> Option<Allowance> {
        let (clock, poll) = (&self.watchdog.clock, &self.standing.poll);
        // Readings of a mocked clock cannot be compared with the machine's.
        if !clock.is_real() {
            return None;
        }
        let now = clock.raw();
        let elapsed = |since| clock.nanos_between(since, now);
        exceptions.broken(poll.opening, poll.start, &self.nest.openings(), elapsed)
    }

    /// How much of its own time is charged to it, as far as the last look knew. Time that is no code's fault counts
    /// for no step of its escalation.
    pub(super) fn charged(&self) -> u64 {
        let margin = self.slot.margin();
        let note = margin.noted(&self.standing.poll);
        let uncharged = note.map_or(0, |note| note.uncharged);
        self.standing.own.saturating_sub(uncharged)
    }

    /// The ids of the watches around it, outermost first.
    fn outer(&self) -> Vec<u64> {
        let is_outer = |poll: &&InFlight| poll.opening != self.standing.poll.opening;
        let outer = self.nest.iter().take_while(is_outer);
        let watches = outer.filter(|poll| !poll.kind.is_off_the_books());
        watches.map(|poll| poll.watch).collect()
    }
}

//! One look at everything in flight: what is over its budget is told, and when to look again.

use std::time::Duration;

use super::escalate::escalate;
use super::examine::{Examined, examine};
use super::stacks::Taker;
use super::stalled::Stalled;
use super::ticker;
use crate::clock::Clock;
use crate::liveness::silence_of_both;
use crate::slot::{self, BudgetStatus, BudgetStatuses, InFlightPoll, PollStack, Slot};
use crate::suspension;
use crate::watch::{is_of_clock, name_of, watchdog_of};

/// Looks at the slots, under one clock. The tests step it by hand with a mocked one.
pub(crate) struct Scanner {
    pub(super) clock: Clock,
    /// The state of each slot when it was last seen.
    states: Vec<u64>,
    /// The slot with which the next look begins.
    first: usize,
    /// `None` under a mocked clock: then nothing is asked of the operating system.
    pub(super) taker: Option<Taker>,
}

/// What was seen.
#[derive(Debug, PartialEq)]
pub(crate) struct Sight {
    /// Nothing is in flight, and nothing was since the look before.
    pub(crate) is_still: bool,
    /// When the next poll in flight passes its budget, or is to be looked at again.
    pub(crate) due: Option<Duration>,
}

/// What was seen of one thread.
struct Seen {
    due: Option<Duration>,
    /// The look left a report to the next one.
    is_left: bool,
}

impl Scanner {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            taker: clock.is_real().then(Taker::new),
            clock,
            states: Vec::new(),
            first: 0,
        }
    }

    pub(crate) fn look(&mut self) -> Sight {
        let mut sight = Sight {
            is_still: true,
            due: None,
        };
        if let Some(taker) = &mut self.taker {
            taker.begin_look();
        }
        let mut slots = slot::all();
        self.states.resize(slots.len(), 0);
        let first = std::mem::take(&mut self.first);
        let first = first.min(slots.len());
        slots.rotate_left(first);
        let mut left_at = None;
        for slot in slots {
            let state = slot.state();
            let before = std::mem::replace(&mut self.states[slot.index()], state);
            sight.is_still &= state == before && !Slot::is_busy(state);
            if Slot::is_busy(state) {
                let Seen { due, is_left } = self.look_at(slot);
                sight.due = [sight.due, due].into_iter().flatten().min();
                left_at = left_at.or(is_left.then_some(slot.index()));
            }
        }
        self.first = left_at.unwrap_or_default();
        sight
    }

    /// Tells what is to be told of one thread's polls, and says when to look at them again.
    ///
    /// The process may have been suspended in the middle of a look, which is not noticed before its end:
    /// while neither witness has given a sign of life for longer than it should have, the sentinel reports nothing. The
    /// next look comes at once, and begins with what was left.
    fn look_at(&mut self, slot: &Slot) -> Seen {
        let nest = self.read(slot);
        let Self { clock, taker, .. } = self;
        let now = clock.raw();
        let (budget_statuses, mut earliest) = budget_statuses(slot, &nest, clock, now);
        let mut is_left = false;
        for budget_status in budget_statuses.iter() {
            let (poll, own) = (&budget_status.poll, budget_status.charged);
            // Slow is what is over its budget, not what is at it.
            let at = if own > poll.budget && may_be_suspended(clock) {
                is_left = true;
                own
            } else if own > poll.budget {
                stalled(clock, taker.as_mut(), slot, &nest, budget_status)
            } else {
                poll.budget.saturating_add(1)
            };
            earliest = earliest.into_iter().chain([at.saturating_sub(own)]).min();
        }
        Seen {
            due: earliest.map(Duration::from_nanos),
            is_left,
        }
    }

    /// The polls in flight on a thread, noted with its account where it is time for that.
    fn read(&self, slot: &Slot) -> PollStack {
        let nest = slot.read().only(|poll| is_of_clock(poll, &self.clock));
        if self.clock.is_real() && !nest.is_empty() {
            note(&self.clock, slot, nest.iter());
        }
        nest
    }
}

/// Takes the thread's account, which costs more than all the rest of a look: when a poll is past
/// half of its budget and was not noted before, and else only so often that there is always one
/// that is hardly older than the poll.
pub(super) fn note<'p>(
    clock: &Clock,
    slot: &Slot,
    polls: impl Iterator<Item = &'p InFlightPoll> + Clone,
) {
    let now = clock.raw();
    let elapsed = |since| clock.nanos_between(since, now);
    let mut diagnostics = slot.diagnostics();
    let is_old = diagnostics
        .accounted_at()
        .is_none_or(|at| elapsed(at) > OLD_ACCOUNT);
    let mut is_half_over =
        |poll: &InFlightPoll| elapsed(poll.start) >= poll.budget / 2 && !diagnostics.has_seen(poll);
    if polls.clone().any(&mut is_half_over) || is_old {
        if let Some((before, now)) = diagnostics.account(now, clock) {
            polls.for_each(|poll| diagnostics.see(poll, before, now));
        }
    }
}

/// Whether a suspension may have begun that no witness has noticed yet. A mocked clock is never suspended.
fn may_be_suspended(clock: &Clock) -> bool {
    let most = ticker::nap() + suspension::LEAST;
    clock.is_real() && silence_of_both(clock, clock.raw()) > most
}

/// How old the latest account of a busy thread may be, in nanoseconds.
const OLD_ACCOUNT: u64 = 50_000_000;

/// Sees to one stall, and says at what own time to look at it again.
fn stalled(
    clock: &Clock,
    mut taker: Option<&mut Taker>,
    slot: &Slot,
    nest: &PollStack,
    budget_status: &BudgetStatus,
) -> u64 {
    const NEVER: u64 = u64::MAX;
    if slot.is_mute() {
        return NEVER;
    }
    let Some(watchdog) = watchdog_of(budget_status.poll.watch) else {
        return NEVER;
    };
    let name = name_of(budget_status.poll.watch);
    let Some(counters) = name.and_then(|name| watchdog.registry.get(&name)) else {
        return NEVER;
    };
    let stalled = Stalled {
        slot,
        nest,
        budget_status,
        watchdog,
        counters,
    };
    let due = stalled.due();
    if budget_status.charged < due {
        return due;
    }
    let orders = stalled.watchdog.slow.orders();
    let examined = examine(slot, budget_status, clock, taker.as_deref_mut(), orders);
    match examined {
        Examined::Innocent => stalled.excuse(),
        Examined::Guilty(mut finding) => {
            finding.is_handed_over = stalled.has_handed_over(taker.as_deref(), &finding);
            stalled.note_stack(&finding);
            if budget_status.charged >= stalled.again_at() {
                stalled.tell(&finding);
            }
            escalate(&stalled, finding, taker);
        }
    }
    stalled.due()
}

/// Where the polls of a thread stand, and in how many nanoseconds what was declared there reaches its limit. It
/// looks for that only if a poll is over its budget otherwise.
fn budget_statuses(
    slot: &Slot,
    nest: &PollStack,
    clock: &Clock,
    now: u64,
) -> (BudgetStatuses, Option<u64>) {
    let budget_statuses = nest.budget_statuses_at(clock, now, None);
    if !clock.is_real() || !budget_statuses.iter().any(BudgetStatus::is_over) {
        return (budget_statuses, None);
    }
    let diagnostics = slot.diagnostics();
    let elapsed = |since| clock.nanos_between(since, now);
    let due = diagnostics.exceptions.due(&nest.seqs(), elapsed);
    let budget_statuses = nest.budget_statuses_at(clock, now, Some(&diagnostics.exceptions));
    (budget_statuses, due.map(|due| due.saturating_add(1)))
}

//! Why a poll is stuck: what its thread does at this moment, and what the accounts say.

use std::sync::Arc;

use super::stacks::{PATIENCE, Subject, Taker};
use super::syscalls::{describe, waits_for};
use crate::attribution::{Attribution, AttributionInput, charged, judge};
use crate::cause::{Cause, Split, Syscall, Target};
use crate::clock::Clock;
use crate::procfs::{self, Standpoint};
use crate::slot::{
    BudgetStatus, Diagnosis, InFlightPoll, SignalDisturbance, Slot, ThreadDiagnostics,
};
use crate::stolen_time::STOLEN_TIME;
use crate::suspension::{DELAYS, SUSPENSIONS};
use crate::sys::{NoCapture, Thread};
use crate::watch::Orders;

/// What came of looking at a poll over its budget.
pub(super) enum Examined {
    /// It is the code's doing.
    Guilty(Diagnosis),
    /// It is nobody's fault, so far.
    Innocent,
}

/// Looks at one stall. Without a taker (under a mocked clock) nothing is asked of the operating
/// system.
pub(super) fn examine(
    slot: &Slot,
    stall: &BudgetStatus,
    clock: &Clock,
    taker: Option<&mut Taker>,
    orders: &Orders,
) -> Examined {
    let thread = slot
        .diagnostics()
        .owner
        .as_ref()
        .and_then(|owner| owner.thread.clone());
    let (Some(taker), Some(thread)) = (taker, thread) else {
        return Examined::Guilty(Diagnosis::default());
    };
    let standpoint = procfs::standpoint(&thread).ok();
    let stance = stance(&thread, standpoint.as_ref());
    // It may have answered late, after an earlier look.
    excuse_disturbance(slot, stall, standpoint.as_ref());
    let (fault, split) = accounts(slot, stall, clock, stance, &thread);
    let cause = match (fault, stance, &standpoint) {
        (Attribution::Starved | Attribution::Suspended, ..) | (_, Stance::Stopped, _) => {
            return Examined::Innocent;
        }
        (Attribution::Computing, ..) => Cause::Computing,
        (_, _, Some(Standpoint::Waits(waits))) => Cause::Blocked(describe(waits)),
        (Attribution::Blocked, ..) => Cause::Blocked(Default::default()),
        (Attribution::Unknown, Stance::OnCpu, _) => Cause::Computing,
        (Attribution::Unknown, Stance::Asleep, _) => Cause::Blocked(Default::default()),
        (Attribution::Unknown, ..) => Cause::Unknown,
    };
    let waits_for = match (cause, &standpoint) {
        (Cause::Blocked(call), Some(Standpoint::Waits(waits)))
            if !orders.without_paths || call.target == Target::Clock =>
        {
            asked_for(slot, stall, call).or_else(|| waits_for(waits))
        }
        _ => None,
    };
    let subject = Subject {
        slot,
        poll: &stall.poll,
        thread: &thread,
        standpoint: standpoint.as_ref(),
        is_on_cpu: stance == Stance::OnCpu,
        patience: PATIENCE,
    };
    let asleep = asleep(slot, standpoint.as_ref());
    let before = clock.raw();
    let taken = taker.take(&subject, orders.stacks);
    if taken.is_late && self::stance(&thread, None) == Stance::Waiting {
        // It could not answer for want of a processor, and the sentinel saw nothing else in that time.
        let now = clock.raw();
        DELAYS.note(clock, before, now, clock.nanos_between(before, now));
    }
    if asleep.is_some() && taken.was_asked {
        let found = Diagnosis {
            cause,
            waits_for: waits_for.clone(),
            ..Diagnosis::default()
        };
        with_note(slot, stall, |diagnostics, poll| {
            let note = diagnostics.note(poll);
            note.disturbed = asleep;
            // A sleep that was cut short is made again with what is left: how long it was is remembered.
            note.finding.get_or_insert(found);
        });
        excuse_disturbance(slot, stall, procfs::standpoint(&thread).ok().as_ref());
    }
    Examined::Guilty(Diagnosis {
        cause,
        waits_for,
        split,
        stack: taken.stack,
        is_stack_late: taken.is_late,
        no_stack: taken.why_not.map(NoCapture::reason),
        ..Diagnosis::default()
    })
}

/// What is to be known of a thread that waits, before it is woken for its stack.
fn asleep(slot: &Slot, standpoint: Option<&Standpoint>) -> Option<SignalDisturbance> {
    let Some(Standpoint::Waits(waits)) = standpoint else {
        return None;
    };
    Some(SignalDisturbance {
        call: waits.number,
        turns: slot.diagnostics().turns()?,
    })
}

/// A thread that waits again, after it was woken for its stack, is not to be the worse for it.
fn excuse_disturbance(slot: &Slot, stall: &BudgetStatus, standpoint: Option<&Standpoint>) {
    if let Some(Standpoint::Waits(waits)) = standpoint {
        with_note(slot, stall, |diagnostics, poll| {
            diagnostics.excuse_disturbance(poll, waits.number);
        });
    }
}

/// Changes what is noted of a poll, unless it has ended.
fn with_note(
    slot: &Slot,
    stall: &BudgetStatus,
    change: impl FnOnce(&mut ThreadDiagnostics, &InFlightPoll),
) {
    let mut diagnostics = slot.diagnostics();
    if slot.is_in_flight(&stall.poll) {
        change(&mut diagnostics, &stall.poll);
    }
}

/// How long a sleep was when it was first looked at: taking a stack interrupts it, and then it is
/// made again with what is left.
fn asked_for(slot: &Slot, stall: &BudgetStatus, call: Syscall) -> Option<Arc<str>> {
    let mut diagnostics = slot.diagnostics();
    let known = diagnostics.note(&stall.poll).finding.as_ref()?;
    let is_same = call.target == Target::Clock && known.cause == Cause::Blocked(call);
    known.waits_for.clone().filter(|_| is_same)
}

/// Whether a thread has a processor at this moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Stance {
    OnCpu,
    /// It could run, and is not run.
    Waiting,
    Asleep,
    /// By a signal, or by a debugger.
    Stopped,
    Unknown,
}

pub(super) fn stance(thread: &Thread, standpoint: Option<&Standpoint>) -> Stance {
    match standpoint {
        Some(Standpoint::Waits(_)) => return Stance::Asleep,
        Some(Standpoint::Running | Standpoint::Elsewhere) | None => {}
    }
    match procfs::state(thread) {
        Some('R') if runs(thread) => Stance::OnCpu,
        Some('R') => Stance::Waiting,
        Some('S' | 'D') => Stance::Asleep,
        Some('T' | 't') => Stance::Stopped,
        _ if runs(thread) => Stance::OnCpu,
        _ => Stance::Unknown,
    }
}

/// The processor clock of a thread moves only while it has a processor.
fn runs(thread: &Thread) -> bool {
    let before = thread.cpu_time();
    // Several readings, because the clock may be coarser than the time between two.
    before.is_some() && (0..8).any(|_| thread.cpu_time() > before)
}

fn accounts(
    slot: &Slot,
    stall: &BudgetStatus,
    clock: &Clock,
    stance: Stance,
    thread: &Thread,
) -> (Attribution, Option<Split>) {
    let stolen = STOLEN_TIME.since(clock, stall.poll.start, procfs::processor(thread));
    let mut diagnostics = slot.diagnostics();
    let now = clock.raw();
    let Some((_, account)) = diagnostics.account(now, clock) else {
        return (Attribution::Unknown, None);
    };
    let start = stall.poll.start;
    let accounts = diagnostics.note(&stall.poll).accounts(start, account);
    let within = accounts.and_then(|accounts| accounts.within_since());
    let elapsed = clock.nanos_between(start, now);
    let case = AttributionInput {
        elapsed,
        charged: stall.charged + elapsed.saturating_sub(stall.elapsed),
        budget: stall.poll.budget,
        since_within: within.map_or(0, |since| clock.nanos_between(since, now)),
        before_start: accounts.map_or(0, |accounts| clock.nanos_between(accounts.before.at, start)),
        suspended: SUSPENSIONS.since(start),
        stolen,
        delayed: DELAYS.since(start),
        is_seen: true,
        waits_now: stance == Stance::Waiting,
    };
    let uncharged = stall
        .charged
        .saturating_sub(charged(case, accounts.as_ref()));
    diagnostics.note(&stall.poll).uncharged = uncharged;
    judge(case, accounts.as_ref())
}

//! Diagnoses a poll or worker over its budget: what its thread does now, and what the CPU samples prove.

use std::sync::Arc;

use super::run_state::{RunState, run_state};
use super::stack_sampler::{MAX_WAIT, StackSampler, Target};
use super::syscalls::{describe, waiting_on};
use crate::attribution::{Attribution, AttributionInput, attribute, charged_nanos};
use crate::clock::Clock;
use crate::procfs::{self, SyscallState};
use crate::report::{Cause, Resource, Syscall, TimeBreakdown};
use crate::slot::{
    BudgetStatus, Diagnosis, InFlightPoll, SignalDisturbance, Slot, ThreadDiagnostics,
};
use crate::stolen_time::STOLEN_TIME;
use crate::suspension::{DELAYS, SUSPENSIONS};
use crate::sys::{NoCapture, Thread};
use crate::watch::Policy;

/// The result of a diagnosis.
pub(super) enum Diagnosed {
    /// The time is charged to the code.
    Charged(Diagnosis),
    /// The time is charged to no code, so far.
    Excused,
}

/// Diagnoses one poll. Without a sampler (under a mocked clock) it does not ask the operating system.
pub(super) fn diagnose(
    slot: &Slot,
    stall: &BudgetStatus,
    clock: &Clock,
    sampler: Option<&mut StackSampler>,
    policy: &Policy,
) -> Diagnosed {
    let (Some(sampler), Some(thread)) = (sampler, thread_of(slot)) else {
        return Diagnosed::Charged(Diagnosis::default());
    };
    let target = Target::observe(slot, &stall.poll, &thread, MAX_WAIT);
    let syscall_state = target.syscall_state;
    // The thread may have answered an earlier request late.
    excuse_disturbance(slot, stall, syscall_state);
    let (attribution, split) = attribute_stall(slot, stall, clock, target.run_state, &thread);
    let cause = match (attribution, target.run_state, &syscall_state) {
        (Attribution::Starved | Attribution::Suspended, ..) | (_, RunState::Stopped, _) => {
            return Diagnosed::Excused;
        }
        (Attribution::Computing, ..) => Cause::Computing,
        (_, _, Some(SyscallState::Waits(waits))) => Cause::Blocked(describe(waits)),
        (Attribution::Blocked, ..) => Cause::Blocked(Default::default()),
        (Attribution::Unknown, RunState::OnCpu, _) => Cause::Computing,
        (Attribution::Unknown, RunState::Asleep, _) => Cause::Blocked(Default::default()),
        (Attribution::Unknown, ..) => Cause::Unknown,
    };
    let waiting_on = match (cause, &syscall_state) {
        (Cause::Blocked(call), Some(SyscallState::Waits(waits)))
            if !policy.without_paths || call.resource == Resource::Clock =>
        {
            first_sleep(slot, stall, call).or_else(|| waiting_on(waits))
        }
        _ => None,
    };
    let disturbance = disturbance(slot, syscall_state);
    let before = clock.raw();
    let sample = sampler.sample(&target, policy.stacks);
    if sample.is_late && run_state(&thread, None) == RunState::Waiting {
        // The thread waited for a processor and could not answer. The sentinel scanned nothing in that time.
        let now = clock.raw();
        DELAYS.record(clock, before, now, clock.nanos_between(before, now));
    }
    if disturbance.is_some() && sample.was_signalled {
        let seen = Diagnosis {
            cause,
            waiting_on: waiting_on.clone(),
            ..Diagnosis::default()
        };
        with_diagnostics(slot, stall, |diagnostics, poll| {
            let record = diagnostics.record(poll);
            record.disturbance = disturbance;
            // A caller that is cut short sleeps again for the rest of the time. This keeps the whole length.
            record.diagnosis.get_or_insert(seen);
        });
        excuse_disturbance(slot, stall, procfs::syscall_state(&thread).ok());
    }
    Diagnosed::Charged(Diagnosis {
        cause,
        waiting_on,
        split,
        stack: sample.stack,
        is_stack_late: sample.is_late,
        no_stack: sample.no_stack.map(NoCapture::reason),
        ..Diagnosis::default()
    })
}

pub(super) fn thread_of(slot: &Slot) -> Option<Thread> {
    slot.diagnostics().owner.as_ref()?.thread.clone()
}

/// Returns what must be known of a sleeping thread before a signal wakes it.
fn disturbance(slot: &Slot, syscall_state: Option<SyscallState>) -> Option<SignalDisturbance> {
    let Some(SyscallState::Waits(waits)) = syscall_state else {
        return None;
    };
    Some(SignalDisturbance {
        call: waits.number,
        sched_counts: slot.diagnostics().sched_counts()?,
    })
}

/// Excuses the wait of a thread that sleeps again after our signal woke it.
fn excuse_disturbance(slot: &Slot, stall: &BudgetStatus, syscall_state: Option<SyscallState>) {
    if let Some(SyscallState::Waits(waits)) = syscall_state {
        with_diagnostics(slot, stall, |diagnostics, poll| {
            diagnostics.excuse_disturbance(poll, waits.number);
        });
    }
}

/// Changes the record of a poll, unless the poll has ended.
fn with_diagnostics(
    slot: &Slot,
    stall: &BudgetStatus,
    change: impl FnOnce(&mut ThreadDiagnostics, &InFlightPoll),
) {
    let mut diagnostics = slot.diagnostics();
    if slot.is_in_flight(&stall.poll) {
        change(&mut diagnostics, &stall.poll);
    }
}

/// Returns the length of a sleep at the first scan. A signal interrupts it, and then the caller sleeps for the rest.
fn first_sleep(slot: &Slot, stall: &BudgetStatus, call: Syscall) -> Option<Arc<str>> {
    let mut diagnostics = slot.diagnostics();
    let known = diagnostics.record(&stall.poll).diagnosis.as_ref()?;
    let is_same = call.resource == Resource::Clock && known.cause == Cause::Blocked(call);
    known.waiting_on.clone().filter(|_| is_same)
}

fn attribute_stall(
    slot: &Slot,
    stall: &BudgetStatus,
    clock: &Clock,
    run_state: RunState,
    thread: &Thread,
) -> (Attribution, Option<TimeBreakdown>) {
    let stolen = STOLEN_TIME.since(clock, stall.poll.start, procfs::processor(thread));
    let mut diagnostics = slot.diagnostics();
    let now = clock.raw();
    let Some((_, sample)) = diagnostics.sample(now, clock) else {
        return (Attribution::Unknown, None);
    };
    let start = stall.poll.start;
    let samples = diagnostics.record(&stall.poll).cpu_samples(start, sample);
    let within = samples.and_then(|samples| samples.within_since());
    let elapsed = clock.nanos_between(start, now);
    let input = AttributionInput {
        elapsed,
        charged: stall.charged + elapsed.saturating_sub(stall.elapsed),
        budget: stall.poll.budget,
        since_within: within.map_or(0, |since| clock.nanos_between(since, now)),
        before_start: samples.map_or(0, |samples| clock.nanos_between(samples.before.at, start)),
        suspended: SUSPENSIONS.since(start),
        stolen,
        delayed: DELAYS.since(start),
        was_seen: true,
        waits_now: run_state == RunState::Waiting,
    };
    let charged = charged_nanos(input, samples.as_ref());
    diagnostics.record(&stall.poll).uncharged = stall.charged.saturating_sub(charged);
    attribute(input, samples.as_ref())
}

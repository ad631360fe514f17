//! Takes the escalation steps of a stall that lasts.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Release},
};
use std::thread;
use std::time::{Duration, Instant};

use super::diagnose::thread_of;
use super::stack_sampler::{StackSampler, Target};
use super::stalled_poll::StalledPoll;
use crate::background_thread;
use crate::report::OtherThread;
use crate::slot::{self, Diagnosis, Slot};
use crate::sys::NoCapture;
use crate::watch::{Action, EscalationStep, Stacks, name_of};

/// The time in which each other thread may answer. The scan's budget bounds the sum.
const MAX_WAIT: Duration = Duration::from_millis(50);

/// The time between the two checks before an abort.
const SECOND_CHECK_NANOS: u64 = 100_000_000;

/// Takes the steps that are due. The caller has just diagnosed the poll and charged it.
pub(super) fn escalate(
    stalled: &StalledPoll<'_>,
    diagnosis: Diagnosis,
    mut sampler: Option<&mut StackSampler>,
) {
    let policy = stalled.watchdog.sink.policy();
    let age = stalled.charged();
    if diagnosis.is_handed_over {
        // Only the poll's own task waits.
        return;
    }
    loop {
        let taken = steps_taken(stalled);
        let is_due = |step: &&EscalationStep| age >= step.after_nanos;
        let Some(step) = policy.steps.get(taken).filter(is_due) else {
            return;
        };
        let is_done = match step.action {
            Action::Stacks => {
                let others = match sampler.as_deref_mut() {
                    Some(sampler) => other_threads(stalled.slot, sampler, policy.stacks),
                    None => Vec::new(),
                };
                report(stalled, &diagnosis, others, None)
            }
            Action::Call(index) => report(stalled, &diagnosis, Vec::new(), Some(index)),
            Action::Abort => abort_at_second_check(stalled, &diagnosis),
        };
        if !is_done {
            return;
        }
        let mut diagnostics = stalled.slot.diagnostics();
        diagnostics.record(&stalled.status.poll).steps_taken = taken + 1;
    }
}

fn steps_taken(stalled: &StalledPoll<'_>) -> usize {
    let mut diagnostics = stalled.slot.diagnostics();
    diagnostics.record(&stalled.status.poll).steps_taken
}

fn report(
    stalled: &StalledPoll<'_>,
    diagnosis: &Diagnosis,
    others: Vec<OtherThread>,
    reporter: Option<usize>,
) -> bool {
    let other_threads: Arc<[OtherThread]> = others.into();
    stalled.with_report_state(diagnosis, |state, poll, diagnosis| {
        let diagnosis = Diagnosis {
            other_threads,
            ..diagnosis
        };
        let sink = &stalled.watchdog.sink;
        sink.on_escalation(&stalled.counters, poll, diagnosis, state, reporter);
    })
}

/// Describes every other thread with polls in flight.
fn other_threads(own: &Slot, sampler: &mut StackSampler, stacks: Stacks) -> Vec<OtherThread> {
    let others = slot::all()
        .into_iter()
        .filter(|slot| !std::ptr::eq(*slot, own));
    others
        .filter_map(|slot| other_thread(slot, sampler, stacks))
        .collect()
}

fn other_thread(slot: &Slot, sampler: &mut StackSampler, stacks: Stacks) -> Option<OtherThread> {
    let polls = slot.read();
    let outermost = polls.iter().next()?;
    let info = slot.diagnostics().thread()?;
    let sample = thread_of(slot).map(|thread| {
        let target = Target::observe(slot, outermost, &thread, MAX_WAIT);
        sampler.sample(&target, stacks)
    });
    let sample = sample.unwrap_or_default();
    Some(OtherThread {
        thread: info,
        watches: polls
            .iter()
            .filter_map(|poll| name_of(poll.watch))
            .collect(),
        stack: sample.stack,
        no_stack: sample.no_stack.map(NoCapture::reason),
    })
}

/// Writes to stderr, and waits at most a second: the stalled thread may hold the lock of stderr, or a full pipe may
/// block the write.
fn write_to_stderr(text: String) {
    const MAX_WAIT: Duration = Duration::from_secs(1);
    let is_written = Arc::new(AtomicBool::new(false));
    let (written, sentinel) = (Arc::clone(&is_written), thread::current());
    let write = move || {
        eprintln!("{text}");
        written.store(true, Release);
        sentinel.unpark();
    };
    // If the system refuses a thread, the abort comes without this line.
    if background_thread::spawn("shotclock-abort", write).is_err() {
        return;
    }
    let deadline = Instant::now() + MAX_WAIT;
    let time_left = || deadline.saturating_duration_since(Instant::now());
    while !is_written.load(Acquire) && !time_left().is_zero() {
        thread::park_timeout(time_left());
    }
}

/// Aborts the process at the second check, from the stalled thread if possible. Returns false at the first check.
fn abort_at_second_check(stalled: &StalledPoll<'_>, diagnosis: &Diagnosis) -> bool {
    let poll = &stalled.status.poll;
    let mut diagnostics = stalled.slot.diagnostics();
    let record = diagnostics.record(poll);
    let age = stalled.status.charged;
    let first = *record.first_abort_check_at.get_or_insert(age);
    if age < first.saturating_add(SECOND_CHECK_NANOS) {
        record.next_step_at = age.saturating_add(SECOND_CHECK_NANOS);
        return false;
    }
    // Under the lock, so that the thread can end neither the poll's record nor itself.
    let owner = diagnostics.owner.as_ref();
    let thread = owner.and_then(|owner| owner.thread.clone());
    if !stalled.slot.is_in_flight(poll) {
        return false;
    }
    write_to_stderr(format!(
        "shotclock: aborting the process: {} of {:?} has stalled for {:.1?} ({})",
        poll.kind,
        stalled.counters.name,
        Duration::from_nanos(age),
        diagnosis.cause,
    ));
    match thread {
        Some(thread) => thread.abort(),
        None => std::process::abort(),
    }
}

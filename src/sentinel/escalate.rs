//! What is done about a stall that goes on and on.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::examine::stance;
use super::stacks::{Subject, Taker};
use super::stalled::Stalled;
use crate::procfs;
use crate::service_thread;
use crate::slot::{self, Diagnosis, OtherThread, Slot};
use crate::sys::NoCapture;
use crate::watch::{Measure, Stacks, name_of};

/// How long each of the other threads may take to answer, and all of them less than one look may wait.
const PATIENCE: Duration = Duration::from_millis(50);

/// Between the two looks before the process is ended, in nanoseconds.
const SECOND_LOOK: u64 = 100_000_000;

/// Takes the steps that are due. The stall has just been looked at, and found to be the code's doing.
pub(super) fn escalate(stalled: &Stalled<'_>, finding: Diagnosis, mut taker: Option<&mut Taker>) {
    let orders = stalled.watchdog.slow.orders();
    let age = stalled.charged();
    if finding.is_handed_over {
        // Nothing waits for it but its own task.
        return;
    }
    loop {
        let taken = steps_taken(stalled);
        let Some(step) = orders.steps.get(taken).filter(|step| age >= step.after) else {
            return;
        };
        let done = match step.measure {
            Measure::Stacks => {
                let others = match taker.as_deref_mut() {
                    Some(taker) => others(stalled.slot, taker, orders.stacks),
                    None => Vec::new(),
                };
                tell(stalled, &finding, others, None)
            }
            Measure::Call(number) => tell(stalled, &finding, Vec::new(), Some(number)),
            Measure::Abort => condemn(stalled, &finding),
        };
        if !done {
            return;
        }
        stalled
            .slot
            .diagnostics()
            .note(&stalled.budget_status.poll)
            .steps_taken = taken + 1;
    }
}

fn steps_taken(stalled: &Stalled<'_>) -> usize {
    stalled
        .slot
        .diagnostics()
        .note(&stalled.budget_status.poll)
        .steps_taken
}

fn tell(
    stalled: &Stalled<'_>,
    finding: &Diagnosis,
    others: Vec<OtherThread>,
    call: Option<usize>,
) -> bool {
    let others: Arc<[OtherThread]> = others.into();
    stalled.with_told(finding, |told, slow, finding| {
        let finding = Diagnosis { others, ..finding };
        let slow_polls = &stalled.watchdog.slow;
        slow_polls.on_escalation(&stalled.counters, slow, finding, told, call);
    })
}

/// Every other thread that has polls in flight.
fn others(own: &Slot, taker: &mut Taker, stacks: Stacks) -> Vec<OtherThread> {
    let others = slot::all()
        .into_iter()
        .filter(|slot| !std::ptr::eq(*slot, own));
    others
        .filter_map(|slot| other(slot, taker, stacks))
        .collect()
}

fn other(slot: &Slot, taker: &mut Taker, stacks: Stacks) -> Option<OtherThread> {
    let nest = slot.read();
    let outermost = nest.iter().next()?;
    let (info, thread) = {
        let diagnostics = slot.diagnostics();
        let owner = diagnostics.owner.as_ref()?;
        (owner.info.clone(), owner.thread.clone())
    };
    let taken = thread.map(|thread| {
        let standpoint = procfs::standpoint(&thread).ok();
        let subject = Subject {
            slot,
            poll: outermost,
            thread: &thread,
            standpoint: standpoint.as_ref(),
            is_on_cpu: stance(&thread, standpoint.as_ref()) == super::examine::Stance::OnCpu,
            patience: PATIENCE,
        };
        taker.take(&subject, stacks)
    });
    let taken = taken.unwrap_or_default();
    Some(OtherThread {
        thread: info,
        watches: nest.iter().filter_map(|poll| name_of(poll.watch)).collect(),
        stack: taken.stack,
        no_stack: taken.why_not.map(NoCapture::reason),
    })
}

/// Writes to stderr, and does not wait for ever: the stuck thread may hold its lock, or wait itself for
/// somebody to read it.
fn say(words: String) {
    const PATIENCE: Duration = Duration::from_secs(1);
    let (said, is_said) = mpsc::channel();
    let say = move || {
        eprintln!("{words}");
        let _ = said.send(());
    };
    // Where no thread can be started, it goes unsaid.
    let _ = service_thread::spawn("shotclock-say", say);
    let _ = is_said.recv_timeout(PATIENCE);
}

/// Ends the process at the second look, in the name of the stuck thread.
fn condemn(stalled: &Stalled<'_>, finding: &Diagnosis) -> bool {
    let poll = &stalled.budget_status.poll;
    let mut diagnostics = stalled.slot.diagnostics();
    let note = diagnostics.note(poll);
    let age = stalled.budget_status.charged;
    let first = *note.condemned_at.get_or_insert(age);
    if age < first.saturating_add(SECOND_LOOK) {
        note.again_for_step = age.saturating_add(SECOND_LOOK);
        return false;
    }
    // Under the lock, so that the thread can neither end the poll's note nor itself.
    let thread = diagnostics
        .owner
        .as_ref()
        .and_then(|owner| owner.thread.clone());
    if !stalled.slot.is_in_flight(poll) {
        return false;
    }
    say(format!(
        "shotclock: aborting the process: {} of {:?} has been stuck for {:.1?} ({})",
        poll.kind,
        stalled.counters.name,
        Duration::from_nanos(age),
        finding.cause,
    ));
    match thread {
        Some(thread) => thread.abort(),
        None => std::process::abort(),
    }
}

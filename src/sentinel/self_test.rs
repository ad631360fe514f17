//! Whether stacks can be captured here: tried out once, by a thread of its own.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use crate::sync::IgnorePoison as _;

/// What came of trying out the capture of stacks.
struct SelfTest {
    outcome: Mutex<Option<Result<(), String>>>,
    known: Condvar,
}

static TRIAL: SelfTest = SelfTest {
    outcome: Mutex::new(None),
    known: Condvar::new(),
};

/// Who tried it out tells; `None` if that panicked.
pub(super) fn tried_out(outcome: Option<Result<(), String>>) {
    let outcome = outcome.unwrap_or_else(|| Err("trying it out panicked".into()));
    let mut known = TRIAL.outcome.lock().ignore_poison();
    *known = Some(outcome);
    TRIAL.known.notify_all();
}

/// Waits until it was tried out, which takes some milliseconds once in a process.
pub(super) fn outcome() -> Result<(), String> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let outcome = TRIAL.outcome.lock().ignore_poison();
    let is_open = |outcome: &mut Option<_>| outcome.is_none();
    let (outcome, _) = TRIAL
        .known
        .wait_timeout_while(outcome, PATIENCE, is_open)
        .ignore_poison();
    outcome
        .clone()
        .unwrap_or_else(|| Err("it has not been tried out yet".into()))
}

//! Keeps the outcome of the capture that the loader's thread makes of itself, once in a process.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use crate::sync::IgnorePoison as _;

/// The outcome of the test capture.
struct SelfTest {
    outcome: Mutex<Option<Result<(), String>>>,
    known: Condvar,
}

static SELF_TEST: SelfTest = SelfTest {
    outcome: Mutex::new(None),
    known: Condvar::new(),
};

/// Records the outcome. `None` means that the test panicked.
pub(super) fn record(outcome: Option<Result<(), String>>) {
    let outcome = outcome.unwrap_or_else(|| Err("the test capture panicked".into()));
    let mut known = SELF_TEST.outcome.lock().ignore_poison();
    *known = Some(outcome);
    SELF_TEST.known.notify_all();
}

/// Waits for the outcome. The test takes some milliseconds, once in a process.
pub(super) fn outcome() -> Result<(), String> {
    /// A program with large debug information on a busy host takes seconds to load.
    const MAX_WAIT: Duration = Duration::from_secs(5);
    let outcome = SELF_TEST.outcome.lock().ignore_poison();
    let is_open = |outcome: &mut Option<_>| outcome.is_none();
    let (outcome, _) = SELF_TEST
        .known
        .wait_timeout_while(outcome, MAX_WAIT, is_open)
        .ignore_poison();
    outcome
        .clone()
        .unwrap_or_else(|| Err("it has not been tried out yet".into()))
}

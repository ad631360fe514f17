//! Observes whether a thread runs, waits for a processor, or sleeps.

use crate::procfs::{self, SyscallState};
use crate::sys::Thread;

/// The state of a thread at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum RunState {
    OnCpu,
    /// Runnable and not scheduled.
    Waiting,
    Asleep,
    /// Stopped by a signal or a debugger.
    Stopped,
    Unknown,
}

pub(super) fn run_state(thread: &Thread, syscall_state: Option<&SyscallState>) -> RunState {
    match syscall_state {
        Some(SyscallState::Waits(_)) => return RunState::Asleep,
        Some(SyscallState::Running | SyscallState::Elsewhere) | None => {}
    }
    match procfs::state(thread) {
        Some('R') if is_running(thread) => RunState::OnCpu,
        Some('R') => RunState::Waiting,
        Some('S' | 'D') => RunState::Asleep,
        Some('T' | 't') => RunState::Stopped,
        _ if is_running(thread) => RunState::OnCpu,
        _ => RunState::Unknown,
    }
}

/// Returns whether the CPU clock of a thread advances, which it does only on a processor.
fn is_running(thread: &Thread) -> bool {
    /// The clock may be coarser than the time between two readings.
    const READINGS: usize = 8;
    let before = thread.cpu_time();
    before.is_some() && (0..READINGS).any(|_| thread.cpu_time() > before)
}

//! Tells whether this process is the child of a fork.
//!
//! A child has one thread, and none of the threads that scan, report and publish. A lock that another thread held at
//! the fork stays locked in the child, so the child must not wait for a lock: see [`Lock`](super::Lock).
//!
//! The process number identifies the process. So the crate detects a child of `fork`, and of the system calls `fork` and
//! `clone`. It also detects a child of `vfork`, which shares the memory of its parent. A child that begins a name space of process
//! numbers may have its parent's number. There the handlers help that `sys::notice_forks` registers. The system calls
//! run no handlers, so such a child of a direct `clone` goes undetected.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// The number of the process that used the crate first. 0 before.
static HOME_PROCESS: AtomicU32 = AtomicU32::new(0);

/// Set in the memory of the child, by the handler of `fork`. `vfork` runs no handler.
static HANDLER_RAN: AtomicBool = AtomicBool::new(false);

/// Makes the current process the home process: it starts the crate's threads. A process that was forked before that has
/// lost none of them.
pub(crate) fn set_home_process() {
    HOME_PROCESS.store(std::process::id(), Relaxed);
}

/// Makes the current process the home process if there is none yet. Cheap after the first call.
pub(crate) fn note_home_process() {
    if HOME_PROCESS.load(Relaxed) == 0 {
        let _ = HOME_PROCESS.compare_exchange(0, std::process::id(), Relaxed, Relaxed);
    }
}

/// Marks the current process as the child of a fork.
pub(crate) fn mark_forked() {
    HANDLER_RAN.store(true, Relaxed);
}

/// Returns whether this is the child of a fork whose parent used the crate. It costs a system call.
pub(crate) fn is_forked() -> bool {
    let home = HOME_PROCESS.load(Relaxed);
    HANDLER_RAN.load(Relaxed) || home != 0 && home != std::process::id()
}

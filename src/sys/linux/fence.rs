//! `membarrier`: the dear half of a fence whose cheap half costs nothing.

use std::sync::OnceLock;

const REGISTER: libc::c_int = libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED;
const EXPEDITED: libc::c_int = libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED;

/// Runs a full memory fence on every thread of this process. False where the kernel is too old
/// (before 4.14), or does not let us.
pub(crate) fn fence_every_thread() -> bool {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    // Miri does not know the call.
    !cfg!(miri) && *REGISTERED.get_or_init(|| membarrier(REGISTER)) && membarrier(EXPEDITED)
}

fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: the call takes numbers and no pointers; both commands change nothing but the order
    // in which memory is seen.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

//! `membarrier`: the heavy half of an asymmetric fence, whose light half costs nothing.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

const REGISTER: libc::c_int = libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED;
const EXPEDITED: libc::c_int = libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED;

/// Runs a full memory fence on every thread of this process. Returns false if the kernel is older than 4.14, or forbids
/// it.
pub(crate) fn fence_every_thread() -> bool {
    // Miri does not know the call.
    !cfg!(miri) && is_registered() && membarrier(EXPEDITED)
}

/// Returns whether the process is registered. To register twice does no harm, so no thread waits for another here.
fn is_registered() -> bool {
    const UNKNOWN: u8 = 0;
    const NO: u8 = 1;
    const YES: u8 = 2;
    static REGISTERED: AtomicU8 = AtomicU8::new(UNKNOWN);
    if REGISTERED.load(Relaxed) == UNKNOWN {
        let is_known = if membarrier(REGISTER) { YES } else { NO };
        REGISTERED.store(is_known, Relaxed);
    }
    REGISTERED.load(Relaxed) == YES
}

fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: the arguments are numbers, and both commands change only the order of memory accesses.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

//! Whether this process is the child of a fork.
//!
//! A child has one thread: none of those that look, report and publish. And a lock that another thread held
//! at that moment stays locked for ever, so nothing may wait for one there: see `sync::Lock`.
//!
//! The process is known by its number, so that a child is known however it was made: by `fork`, by the system calls
//! `fork` and `clone`, and by `vfork`, in which it shares the memory of its parent. The number is no evidence where a
//! child begins a name space of numbers, in which it may have the same one. There the handlers of `pthread_atfork`
//! help, which the system calls do not run: a process that makes such a child by `clone` itself goes unnoticed.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// The process in which the crate was used first; 0 before.
static HOME: AtomicU32 = AtomicU32::new(0);

/// Only `fork` sets it, in the memory of the child: not `vfork`, which has none.
static FORKED: AtomicBool = AtomicBool::new(false);

/// What is done before a fork, and after it on both sides.
struct Around {
    hold: fn(),
    release: fn(),
}

static AROUND: OnceLock<Around> = OnceLock::new();

extern "C" fn before() {
    if let Some(around) = AROUND.get() {
        (around.hold)();
    }
}

extern "C" fn after() {
    if let Some(around) = AROUND.get() {
        (around.release)();
    }
}

extern "C" fn in_the_child() {
    FORKED.store(true, Relaxed);
    after();
}

/// Has forks noticed from now on, because the process has threads of the crate. `hold` takes what the child must find
/// free, and `release` gives it back; neither may panic. The first call holds for the process.
pub(crate) fn notice_forks(hold: fn(), release: fn()) {
    AROUND.get_or_init(|| {
        // A process that was forked before it had such threads has lost none of them.
        HOME.store(std::process::id(), Relaxed);
        // SAFETY: the functions live as long as the program. Where there is no memory for them, forks are noticed
        // by the number alone.
        unsafe { libc::pthread_atfork(Some(before), Some(after), Some(in_the_child)) };
        Around { hold, release }
    });
}

/// Says that this process uses the crate. Cheap after the first time.
pub(crate) fn settle() {
    if HOME.load(Relaxed) == 0 {
        let _ = HOME.compare_exchange(0, std::process::id(), Relaxed, Relaxed);
    }
}

/// Whether this is the child of a fork, and its parent used the crate. It costs a system call.
pub(crate) fn is_forked() -> bool {
    let home = HOME.load(Relaxed);
    FORKED.load(Relaxed) || home != 0 && home != std::process::id()
}

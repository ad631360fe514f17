//! Registers handlers of `fork`, which detect a child and keep locks free in it.

use std::sync::OnceLock;

use crate::sync::fork;

/// The functions to run before a fork, and after it in both processes.
struct Handlers {
    hold: fn(),
    release: fn(),
}

static HANDLERS: OnceLock<Handlers> = OnceLock::new();

extern "C" fn before() {
    if let Some(handlers) = HANDLERS.get() {
        (handlers.hold)();
    }
}

extern "C" fn after() {
    if let Some(handlers) = HANDLERS.get() {
        (handlers.release)();
    }
}

extern "C" fn after_in_child() {
    fork::mark_forked();
    after();
}

/// Registers the handlers, because the process starts threads of the crate.
///
/// `hold` takes the locks that must be free in the child, and `release` gives them back. Neither may panic. Only the
/// first call has an effect.
pub(crate) fn notice_forks(hold: fn(), release: fn()) {
    HANDLERS.get_or_init(|| {
        fork::set_home_process();
        // SAFETY: the functions live as long as the program. If memory for them is missing, only the process id
        // shows a fork.
        unsafe { libc::pthread_atfork(Some(before), Some(after), Some(after_in_child)) };
        Handlers { hold, release }
    });
}

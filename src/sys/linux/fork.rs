//! Whether this process is the child of a fork.
//!
//! A child has one thread: none of those that look, report and publish. And a lock that another thread held
//! at that moment stays locked for ever, so a poll must not take one there.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

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

/// Has forks noticed from now on. `hold` takes what the child must find free, and `release` gives it
/// back; neither may panic. The first call holds for the process.
pub(crate) fn notice_forks(hold: fn(), release: fn()) {
    AROUND.get_or_init(|| {
        // SAFETY: the functions live as long as the program. Where there is no memory for them, forks go
        // unnoticed.
        unsafe { libc::pthread_atfork(Some(before), Some(after), Some(in_the_child)) };
        Around { hold, release }
    });
}

/// Whether this is the child of a fork that was noticed.
pub(crate) fn is_forked() -> bool {
    FORKED.load(Relaxed)
}

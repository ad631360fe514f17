//! The threads of a lane.

#[cfg(feature = "rayon")]
use std::sync::Arc;

use tokio::runtime::Handle;

/// Where the closures of a lane run.
pub(crate) enum Backend {
    /// The blocking pool of the runtime that the lane is called in.
    Tokio,
    #[cfg(feature = "rayon")]
    Rayon(Arc<rayon::ThreadPool>),
    /// Each in a thread of its own; or none, as with a runtime that has shut down.
    #[cfg(all(test, shotclock_loom))]
    Model { is_shut_down: bool },
}

impl Backend {
    pub(super) fn needs_runtime(&self) -> bool {
        matches!(self, Backend::Tokio)
    }

    /// Runs it on one of the threads, or drops it where there is none. May panic.
    pub(super) fn spawn(&self, runtime: Option<&Handle>, work: impl FnOnce() + Send + 'static) {
        match self {
            Backend::Tokio => drop(runtime.map(|runtime| runtime.spawn_blocking(work))),
            #[cfg(feature = "rayon")]
            Backend::Rayon(pool) => pool.spawn_fifo(work),
            #[cfg(all(test, shotclock_loom))]
            Backend::Model { is_shut_down: true } => drop(work),
            #[cfg(all(test, shotclock_loom))]
            Backend::Model { .. } => drop(loom::thread::spawn(work)),
        }
    }
}

//! The threads of a lane.

#[cfg(feature = "rayon")]
use std::sync::Arc;

use tokio::runtime::Handle;

/// The threads that run the closures of a lane.
pub(crate) enum Backend {
    /// The blocking pool of the caller's runtime.
    Tokio,
    #[cfg(feature = "rayon")]
    Rayon(Arc<rayon::ThreadPool>),
    /// A thread for each closure, or none, as for a runtime that has shut down.
    #[cfg(all(test, shotclock_loom))]
    Model { is_shut_down: bool },
}

impl Backend {
    pub(super) fn needs_runtime(&self) -> bool {
        matches!(self, Backend::Tokio)
    }

    /// Runs work on one of the threads, or drops it if there is none. May panic.
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

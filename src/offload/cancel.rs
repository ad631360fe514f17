//! How a closure learns that nobody waits for it any more.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Tells a closure that nobody waits for its result any more, so that it can stop. Given by
/// [`Lane::run_cancellable`](crate::Lane::run_cancellable).
///
/// A clone is the same token, for helpers on other threads.
#[derive(Clone)]
pub struct Cancel {
    own: Arc<AtomicBool>,
    lane: Arc<AtomicU64>,
    born: u64,
}

impl Cancel {
    pub(super) fn new(lane: &Arc<AtomicU64>) -> Self {
        Self {
            own: Arc::default(),
            born: lane.load(Relaxed),
            lane: Arc::clone(lane),
        }
    }

    /// Whether the future of the closure was dropped, or everything in the lane cancelled
    /// ([`Lane::cancel_all`](crate::Lane::cancel_all)). Once it is, it stays so.
    ///
    /// It costs two loads: ask often.
    pub fn is_cancelled(&self) -> bool {
        self.own.load(Relaxed) || self.lane.load(Relaxed) != self.born
    }

    /// Flips the token when it is dropped.
    pub(super) fn on_drop(&self) -> CancelOnDrop {
        CancelOnDrop(Arc::clone(&self.own))
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancel")
            .field("is_cancelled", &self.is_cancelled())
            .finish()
    }
}

pub(super) struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

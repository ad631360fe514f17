//! The token by which a closure detects its cancellation.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Lets a closure detect that its result is no longer needed. [`Lane::run_cancellable`](crate::Lane::run_cancellable)
/// passes it to the closure.
///
/// A clone is the same token, for other threads that work for the closure.
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

    /// Returns whether the future of the closure was dropped, or all work of the lane was cancelled
    /// ([`Lane::cancel_all`](crate::Lane::cancel_all)).
    ///
    /// It never returns to false. A call costs two loads, so call it often.
    pub fn is_cancelled(&self) -> bool {
        self.own.load(Relaxed) || self.lane.load(Relaxed) != self.born
    }

    /// Makes a guard that cancels the token on drop.
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

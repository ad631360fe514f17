//! What a slot says of one poll.

use std::panic::Location;

use super::NO_WATCH;
use crate::sync::AtomicU64;
use crate::sys::StaticRef;

/// What is known of one poll in flight, in a cache line.
#[repr(align(64))]
pub(super) struct Frame {
    /// The id of the watch, and the [`Kind`](super::Kind) in the lowest bits.
    pub(super) watch: AtomicU64,
    pub(super) start: AtomicU64,
    /// Nanoseconds.
    pub(super) budget: AtomicU64,
    pub(super) location: StaticRef<Location<'static>>,
    /// Where the stack stood when the poll began: what is beyond it is not of this poll.
    pub(super) stack: AtomicU64,
    /// The `state` that was published with this frame; a [`FrameToken`](super::FrameToken) of another one is stale.
    pub(super) seq: AtomicU64,
    /// Nanoseconds of watched polls that ended inside this one: what is not its self time.
    pub(super) nested: AtomicU64,
    /// Nanoseconds of slow polls inside this one that were charged_inside already.
    pub(super) charged_inside: AtomicU64,
}

impl Frame {
    pub(super) fn new(seq: u64) -> Self {
        Self {
            watch: AtomicU64::new(NO_WATCH),
            start: AtomicU64::new(0),
            budget: AtomicU64::new(0),
            location: StaticRef::empty(),
            stack: AtomicU64::new(0),
            seq: AtomicU64::new(seq),
            nested: AtomicU64::new(0),
            charged_inside: AtomicU64::new(0),
        }
    }
}

//! One poll in a slot.

use std::panic::Location;

use super::NO_WATCH;
use crate::sync::AtomicU64;
use crate::sys::StaticRef;

/// One poll in flight, in one cache line.
#[repr(align(64))]
pub(super) struct PollFrame {
    /// The id of the watch, and the kind and the ticked mark in the lowest bits: see [`tag`](super::tag).
    pub(super) watch: AtomicU64,
    pub(super) start: AtomicU64,
    /// Nanoseconds.
    pub(super) budget: AtomicU64,
    pub(super) location: StaticRef<Location<'static>>,
    /// The stack pointer at the begin of the poll. Frames of the call stack beyond it are not the poll's.
    pub(super) stack: AtomicU64,
    /// The `state` that was published with this frame. A [`FrameToken`](super::FrameToken) with another one is stale.
    pub(super) seq: AtomicU64,
    /// Nanoseconds of watched polls that ended inside this one: not its self time.
    pub(super) nested: AtomicU64,
    /// Nanoseconds of slow polls that ended inside this one: not charged to it.
    pub(super) charged_inside: AtomicU64,
}

impl PollFrame {
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

//! Floor 2: the last polls that took more than half of their budgets, in a ring.
//!
//! For who asks afterwards what the threads were doing. The ring is the process's, it has
//! [`CAPACITY`] places and takes 256 KiB from the first watchdog on. A place is locked while it is
//! written or copied, so nobody waits for a whole reading.

use std::num::NonZeroU64;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::slot::Kind;
use crate::sync::Lock;

/// How many polls are remembered.
pub(crate) const CAPACITY: usize = 4_096;

/// One poll that has ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Passage {
    /// The id of the watch.
    pub(crate) watch: u64,
    pub(crate) kind: Kind,
    /// The number of the thread's slot.
    pub(crate) slot: usize,
    /// Its number there.
    pub(crate) opening: Option<NonZeroU64>,
    /// A raw reading of the machine's clock.
    pub(crate) start: u64,
    /// Nanoseconds.
    pub(crate) elapsed: u64,
    pub(crate) budget: u64,
}

struct Ring {
    places: Box<[Lock<Option<Passage>>]>,
    next: AtomicUsize,
}

static RING: LazyLock<Ring> = LazyLock::new(|| Ring::new(CAPACITY));

/// Makes the ring, so that the first poll that leaves something in it does not have to.
pub(crate) fn prepare() {
    LazyLock::force(&RING);
}

/// Remembers a poll, in the place of the oldest.
pub(crate) fn note(passage: Passage) {
    RING.note(passage);
}

/// What is remembered, by the time when it began.
#[cfg(any(test, feature = "page"))]
pub(crate) fn read() -> Vec<Passage> {
    RING.read()
}

impl Ring {
    fn new(capacity: usize) -> Self {
        Self {
            places: (0..capacity).map(|_| Lock::new(None)).collect(),
            next: AtomicUsize::new(0),
        }
    }

    fn note(&self, passage: Passage) {
        let next = self.next.fetch_add(1, Relaxed) % self.places.len();
        let mut place = self.places[next].lock();
        *place = Some(passage);
    }

    #[cfg(any(test, feature = "page"))]
    fn read(&self) -> Vec<Passage> {
        let read = |place: &Lock<_>| *place.lock();
        let mut passages: Vec<_> = self.places.iter().filter_map(read).collect();
        passages.sort_by_key(|passage: &Passage| passage.start);
        passages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_remembered_in_a_bounded_ring() {
        let ring = Ring::new(3);
        for start in [40, 10, 30, 20] {
            ring.note(Passage {
                opening: None,
                watch: 0,
                kind: Kind::Poll,
                slot: 0,
                start,
                elapsed: 1,
                budget: 1,
            });
        }
        let starts: Vec<_> = ring.read().iter().map(|passage| passage.start).collect();
        assert_eq!(starts, [10, 20, 30]);
        let bytes = size_of::<Lock<Option<Passage>>>() * CAPACITY;
        assert_eq!(bytes, 256 << 10);
    }
}

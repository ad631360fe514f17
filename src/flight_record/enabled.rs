//! The ring. It has [`CAPACITY`] places and takes 256 KiB from the first watchdog on. A place is locked
//! while it is written or copied, and a poll waits for none.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError, TryLockError};

use super::Passage;
use crate::sys;

/// How many polls are remembered.
const CAPACITY: usize = 4_096;

/// How many places a poll tries. A reader copies one place at a time, so the next one is free.
const TRIES: usize = 4;

type Place = Mutex<Option<Passage>>;

struct Ring {
    places: Box<[Place]>,
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
pub(crate) fn read() -> Vec<Passage> {
    RING.read()
}

impl Ring {
    fn new(capacity: usize) -> Self {
        Self {
            places: (0..capacity).map(|_| Mutex::new(None)).collect(),
            next: AtomicUsize::new(0),
        }
    }

    /// Takes no lock that it would have to wait for: in the child of a fork, a place stays locked for ever that
    /// another thread of the parent was writing. A locked place is passed over.
    fn note(&self, passage: Passage) {
        for _ in 0..TRIES {
            let next = self.next.fetch_add(1, Relaxed) % self.places.len();
            if let Some(mut place) = try_lock(&self.places[next]) {
                *place = Some(passage);
                return;
            }
        }
    }

    fn read(&self) -> Vec<Passage> {
        let read = |place: &Place| match sys::is_forked() {
            true => try_lock(place).and_then(|place| *place),
            false => *place.lock().unwrap_or_else(PoisonError::into_inner),
        };
        let mut passages: Vec<_> = self.places.iter().filter_map(read).collect();
        passages.sort_by_key(|passage: &Passage| passage.start);
        passages
    }
}

fn try_lock(place: &Place) -> Option<MutexGuard<'_, Option<Passage>>> {
    match place.try_lock() {
        Ok(place) => Some(place),
        Err(TryLockError::Poisoned(place)) => Some(place.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::Kind;

    fn note(ring: &Ring, start: u64) {
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

    fn starts(ring: &Ring) -> Vec<u64> {
        ring.read().iter().map(|passage| passage.start).collect()
    }

    #[test]
    fn the_latest_are_remembered_in_a_bounded_ring() {
        let ring = Ring::new(3);
        for start in [40, 10, 30, 20] {
            note(&ring, start);
        }
        assert_eq!(starts(&ring), [10, 20, 30]);
        let bytes = size_of::<Place>() * CAPACITY;
        assert_eq!(bytes, 256 << 10);
    }

    #[test]
    fn note_at_a_place_that_is_locked_takes_the_next_one() {
        let ring = Ring::new(3);
        let locked = ring.places[1].lock().unwrap();
        for start in [1, 2, 3] {
            note(&ring, start);
        }
        drop(locked);
        // The first place had 1, and the third was taken; then it was the first one's turn again.
        assert_eq!(starts(&ring), [2, 3]);
    }

    #[test]
    fn note_while_every_place_is_locked_gives_up() {
        let ring = Ring::new(1);
        let locked = ring.places[0].lock().unwrap();
        note(&ring, 1);
        drop(locked);
        assert!(starts(&ring).is_empty());
    }
}

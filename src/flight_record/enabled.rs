//! The ring of recent polls: [`CAPACITY_ENTRIES`] cells, 256 KiB, allocated by the first watchdog.
//!
//! A writer or reader locks one cell at a time, and a poll never waits for a lock.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{LazyLock, Mutex};

use super::RecordedPoll;
use crate::sync::IgnorePoison as _;
use crate::sys;

/// Polls that the ring keeps: enough for the last seconds of a service in trouble, in 256 KiB.
const CAPACITY_ENTRIES: usize = 4_096;

/// Cells that a poll tries. A reader locks one cell at a time, so the next cell is usually free.
const MAX_TRIES: usize = 4;

type Cell = Mutex<Option<RecordedPoll>>;

struct Ring {
    cells: Box<[Cell]>,
    next: AtomicUsize,
}

static RING: LazyLock<Ring> = LazyLock::new(|| Ring::new(CAPACITY_ENTRIES));

/// Allocates the ring, so that no poll has to.
pub(crate) fn prepare() {
    LazyLock::force(&RING);
}

/// Records a poll over the oldest one.
pub(crate) fn record(entry: RecordedPoll) {
    RING.record(entry);
}

/// Returns the recorded polls, ordered by their start.
pub(crate) fn read() -> Vec<RecordedPoll> {
    RING.read()
}

impl Ring {
    fn new(capacity: usize) -> Self {
        Self {
            cells: (0..capacity).map(|_| Mutex::new(None)).collect(),
            next: AtomicUsize::new(0),
        }
    }

    /// Skips locked cells and never waits. In the child of a fork, a cell stays locked if another thread of the
    /// parent was writing it.
    fn record(&self, entry: RecordedPoll) {
        for _ in 0..MAX_TRIES {
            let next = self.next.fetch_add(1, Relaxed) % self.cells.len();
            if let Some(mut cell) = self.cells[next].try_lock().ignore_poison() {
                *cell = Some(entry);
                return;
            }
        }
    }

    fn read(&self) -> Vec<RecordedPoll> {
        let read = |cell: &Cell| match sys::is_forked() {
            true => cell.try_lock().ignore_poison().and_then(|cell| *cell),
            false => *cell.lock().ignore_poison(),
        };
        let mut entries: Vec<_> = self.cells.iter().filter_map(read).collect();
        entries.sort_by_key(|entry: &RecordedPoll| entry.start);
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::SectionKind;

    fn record(ring: &Ring, start: u64) {
        ring.record(RecordedPoll {
            seq: None,
            watch: 0,
            kind: SectionKind::Poll,
            slot: 0,
            start,
            elapsed_nanos: 1,
            budget_nanos: 1,
        });
    }

    fn starts(ring: &Ring) -> Vec<u64> {
        ring.read().iter().map(|entry| entry.start).collect()
    }

    #[test]
    fn record_past_the_capacity_keeps_the_latest() {
        let ring = Ring::new(3);
        for start in [40, 10, 30, 20] {
            record(&ring, start);
        }
        assert_eq!(starts(&ring), [10, 20, 30]);
        let bytes = size_of::<Cell>() * CAPACITY_ENTRIES;
        assert_eq!(bytes, 256 << 10);
    }

    #[test]
    fn record_at_a_locked_cell_takes_the_next_one() {
        let ring = Ring::new(3);
        let locked = ring.cells[1].lock().unwrap();
        for start in [1, 2, 3] {
            record(&ring, start);
        }
        drop(locked);
        // The first cell got 1, the third got 2, and then 3 replaced 1.
        assert_eq!(starts(&ring), [2, 3]);
    }

    #[test]
    fn record_while_every_cell_is_locked_gives_up() {
        let ring = Ring::new(1);
        let locked = ring.cells[0].lock().unwrap();
        record(&ring, 1);
        drop(locked);
        assert!(starts(&ring).is_empty());
    }
}

//! Floor 1: an append-only table that readers use without a lock.

use std::sync::OnceLock;

use crate::sys;

/// Entries that lie in the table itself, where a look-up is shortest: the hot path looks up the small indices of slots.
const INLINE_ENTRIES: usize = 32;
/// Chunk `k` holds `INLINE_ENTRIES << k` entries. 26 chunks hold more ids than a process can use.
const CHUNKS: usize = 26;

type Chunk<T> = Box<[OnceLock<T>]>;

/// Holds entries by small index. Each entry is written once, and never moved or removed.
///
/// A read takes no lock and waits for no thread, so the hot path may use it. Memory grows with the
/// highest index in use, in chunks that double.
pub(crate) struct AppendTable<T> {
    first: [OnceLock<T>; INLINE_ENTRIES],
    chunks: [OnceLock<Chunk<T>>; CHUNKS],
}

/// Entries that a table can hold: 2,147,483,648.
const CAPACITY_ENTRIES: usize = INLINE_ENTRIES << CHUNKS;

/// Returns the chunk of an index from [`INLINE_ENTRIES`] on, and the offset in the chunk.
fn locate(index: usize) -> (usize, usize) {
    let chunk = (index / INLINE_ENTRIES).ilog2() as usize;
    (chunk, index - (INLINE_ENTRIES << chunk))
}

impl<T> AppendTable<T> {
    pub(crate) const fn new() -> Self {
        Self {
            first: [const { OnceLock::new() }; INLINE_ENTRIES],
            chunks: [const { OnceLock::new() }; CHUNKS],
        }
    }

    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        match self.first.get(index) {
            Some(entry) => entry.get(),
            None => self.get_far(index),
        }
    }

    fn get_far(&self, index: usize) -> Option<&T> {
        let (chunk, offset) = locate(index);
        self.chunks.get(chunk)?.get()?.get(offset)?.get()
    }

    /// Returns the entry at `index`; `init` makes it if it does not exist yet.
    ///
    /// Returns `None` beyond [`CAPACITY_ENTRIES`], and for a missing entry in the child of a fork.
    #[cold]
    pub(crate) fn get_or_init(&self, index: usize, init: impl FnOnce() -> T) -> Option<&T> {
        if index >= CAPACITY_ENTRIES {
            return None;
        }
        // A thread of the parent may have held this `OnceLock` at the fork. In the child it never finishes.
        if sys::is_forked() {
            return self.get(index);
        }
        if let Some(entry) = self.first.get(index) {
            return Some(entry.get_or_init(init));
        }
        let (chunk, offset) = locate(index);
        let entries = self.chunks[chunk].get_or_init(|| {
            let entries = INLINE_ENTRIES << chunk;
            (0..entries).map(|_| OnceLock::new()).collect()
        });
        Some(entries.get(offset)?.get_or_init(init))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let chunks = self.chunks.iter().filter_map(OnceLock::get);
        let far = chunks.flat_map(|chunk| chunk.iter());
        self.first.iter().chain(far).filter_map(OnceLock::get)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locate_at_chunk_borders_gives_distinct_offsets() {
        assert_eq!(locate(32), (0, 0));
        assert_eq!(locate(63), (0, 31));
        assert_eq!(locate(64), (1, 0));
        assert_eq!(locate(127), (1, 63));
        assert_eq!(locate(128), (2, 0));
        assert_eq!(
            locate(CAPACITY_ENTRIES - 1),
            (CHUNKS - 1, CAPACITY_ENTRIES / 2 - 1)
        );
    }

    #[test]
    fn get_or_init_twice_keeps_the_first_entry() {
        let table = AppendTable::new();
        assert_eq!(table.get(100), None);
        assert_eq!(table.get_or_init(100, || 1), Some(&1));
        assert_eq!(table.get_or_init(100, || 2), Some(&1));
        assert_eq!(table.get(100), Some(&1));
        assert_eq!(table.get_or_init(3, || 3), Some(&3));
        assert_eq!(table.get(3), Some(&3));
        assert_eq!(table.iter().copied().collect::<Vec<_>>(), [3, 1]);
    }

    #[test]
    fn get_past_the_capacity_returns_none() {
        let table = AppendTable::new();
        assert_eq!(table.get(CAPACITY_ENTRIES), None);
        assert_eq!(table.get_or_init(CAPACITY_ENTRIES, || 1), None);
        assert_eq!(table.get(usize::MAX), None);
    }
}

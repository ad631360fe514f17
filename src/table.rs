//! Floor 1: a table that grows and is read without a lock.

use std::sync::OnceLock;

use crate::sys;

/// So many entries lie in the table itself, where a look-up is shortest.
const INLINE: usize = 32;
/// Chunk `k` holds `INLINE << k` more.
const CHUNKS: usize = 26;

type Chunk<T> = Box<[OnceLock<T>]>;

/// Entries by small index, each written once, never moved and never taken out.
///
/// A read takes no lock and waits for nobody, which is why the hot path may use it. Memory grows
/// with the highest index used, in chunks that double.
pub(crate) struct Table<T> {
    first: [OnceLock<T>; INLINE],
    chunks: [OnceLock<Chunk<T>>; CHUNKS],
}

/// How many entries a table can hold: over two thousand million.
const CAPACITY: usize = INLINE << CHUNKS;

/// The chunk and the place in it of an index from [`INLINE`] on.
fn locate(index: usize) -> (usize, usize) {
    let chunk = (index / INLINE).ilog2() as usize;
    (chunk, index - (INLINE << chunk))
}

impl<T> Table<T> {
    pub(crate) const fn new() -> Self {
        Self {
            first: [const { OnceLock::new() }; INLINE],
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

    /// The entry at `index`, made by `init` if it is not there yet.
    ///
    /// `None` only beyond [`CAPACITY`].
    #[cold]
    pub(crate) fn get_or_init(&self, index: usize, init: impl FnOnce() -> T) -> Option<&T> {
        if index >= CAPACITY {
            return None;
        }
        // In the child of a fork, whoever is putting something in may not exist, and would be waited for.
        if sys::is_forked() {
            return self.get(index);
        }
        if let Some(entry) = self.first.get(index) {
            return Some(entry.get_or_init(init));
        }
        let (chunk, offset) = locate(index);
        let entries = self.chunks[chunk].get_or_init(|| {
            let entries = INLINE << chunk;
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
    fn neighbours_across_chunks_have_places_of_their_own() {
        assert_eq!(locate(32), (0, 0));
        assert_eq!(locate(63), (0, 31));
        assert_eq!(locate(64), (1, 0));
        assert_eq!(locate(127), (1, 63));
        assert_eq!(locate(128), (2, 0));
        assert_eq!(locate(CAPACITY - 1), (CHUNKS - 1, CAPACITY / 2 - 1));
    }

    #[test]
    fn an_entry_is_made_once_and_found_again() {
        let table = Table::new();
        assert_eq!(table.get(100), None);
        assert_eq!(table.get_or_init(100, || 1), Some(&1));
        assert_eq!(table.get_or_init(100, || 2), Some(&1));
        assert_eq!(table.get(100), Some(&1));
        assert_eq!(table.get_or_init(3, || 3), Some(&3));
        assert_eq!(table.get(3), Some(&3));
        assert_eq!(table.iter().copied().collect::<Vec<_>>(), [3, 1]);
    }

    #[test]
    fn an_index_past_the_end_is_refused() {
        let table = Table::new();
        assert_eq!(table.get(CAPACITY), None);
        assert_eq!(table.get_or_init(CAPACITY, || 1), None);
        assert_eq!(table.get(usize::MAX), None);
    }
}

//! Floor 1: a table that grows and is read without a lock.

use std::sync::OnceLock;

/// Chunk `k` holds `FIRST << k` entries.
const FIRST: usize = 8;
const CHUNKS: usize = 28;

type Chunk<T> = Box<[OnceLock<T>]>;

/// Entries by small index, each written once, never moved and never taken out.
///
/// A read is two acquire loads: it takes no lock and waits for nobody, which is why the hot path
/// may use it. Memory grows with the highest index used, in chunks that double.
pub(crate) struct Table<T> {
    chunks: [OnceLock<Chunk<T>>; CHUNKS],
}

/// How many entries a table can hold: over two thousand million.
const CAPACITY: usize = FIRST * ((1 << CHUNKS) - 1);

fn locate(index: usize) -> (usize, usize) {
    let shifted = index.saturating_add(FIRST);
    let chunk = (shifted / FIRST).ilog2() as usize;
    (chunk, shifted - (FIRST << chunk))
}

impl<T> Table<T> {
    pub(crate) const fn new() -> Self {
        Self {
            chunks: [const { OnceLock::new() }; CHUNKS],
        }
    }

    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
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
        let (chunk, offset) = locate(index);
        let entries = self.chunks[chunk].get_or_init(|| {
            let entries = FIRST << chunk;
            (0..entries).map(|_| OnceLock::new()).collect()
        });
        Some(entries.get(offset)?.get_or_init(init))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let chunks = self.chunks.iter().filter_map(OnceLock::get);
        chunks.flat_map(|chunk| chunk.iter().filter_map(OnceLock::get))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_across_chunks_have_places_of_their_own() {
        assert_eq!(locate(0), (0, 0));
        assert_eq!(locate(7), (0, 7));
        assert_eq!(locate(8), (1, 0));
        assert_eq!(locate(23), (1, 15));
        assert_eq!(locate(24), (2, 0));
        assert_eq!(locate(CAPACITY - 1).0, CHUNKS - 1);
    }

    #[test]
    fn an_entry_is_made_once_and_found_again() {
        let table = Table::new();
        assert_eq!(table.get(100), None);
        assert_eq!(table.get_or_init(100, || 1), Some(&1));
        assert_eq!(table.get_or_init(100, || 2), Some(&1));
        assert_eq!(table.get_or_init(3, || 3), Some(&3));
        assert_eq!(table.iter().copied().collect::<Vec<_>>(), [3, 1]);
    }

    #[test]
    fn an_index_past_the_end_is_refused() {
        let table = Table::new();
        assert_eq!(table.get(CAPACITY), None);
        assert_eq!(table.get_or_init(CAPACITY, || 1), None);
    }
}

//! Which budgets are in use, by order of magnitude: how often the sentinel has to look depends on
//! the shortest, and a watch with a short one may come and go.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Cell `k` counts the budgets from 2^k ms up to twice that; the first those below 2 ms as well, the
/// last all above.
const CELLS: usize = 10;

static IN_USE: [AtomicU64; CELLS] = [const { AtomicU64::new(0) }; CELLS];

fn cell_of(nanos: u64) -> usize {
    let whole = (nanos / 1_000_000).max(1);
    (whole.ilog2() as usize).min(CELLS - 1)
}

/// The lower bound of the shortest budget in use, between 1 and 512 ms.
pub(crate) fn shortest() -> Duration {
    let used = IN_USE.iter().position(|count| count.load(Relaxed) > 0);
    Duration::from_millis(1 << used.unwrap_or(CELLS - 1))
}

/// A budget that is in use as long as this lives.
pub(super) struct InUse {
    cell: usize,
}

impl InUse {
    pub(super) fn new(nanos: u64) -> Self {
        let cell = cell_of(nanos);
        IN_USE[cell].fetch_add(1, Relaxed);
        Self { cell }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        IN_USE[self.cell].fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_of_a_cell_is_at_most_any_budget_in_it() {
        let ms = 1_000_000;
        for nanos in [
            2 * ms,
            3 * ms,
            4 * ms,
            10 * ms,
            511 * ms,
            512 * ms,
            u64::MAX,
        ] {
            assert!((ms << cell_of(nanos)) <= nanos, "{nanos}");
        }
        assert_eq!((cell_of(0), cell_of(ms), cell_of(10 * ms)), (0, 0, 3));
    }

    #[test]
    fn the_shortest_counts_while_it_is_in_use() {
        let in_use = InUse::new(1);
        assert_eq!(shortest(), Duration::from_millis(1));
        drop(in_use);
    }
}

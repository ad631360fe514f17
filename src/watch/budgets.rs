//! Counts the budgets in use by magnitude.
//!
//! The sentinel's scan interval depends on the shortest budget, and watches come and go.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::slot::SENTINEL_PARKER;

/// Cells of a quarter of a doubling each, from 1 ms to 0.9 s. The first also counts shorter budgets, the last longer
/// ones.
const CELLS: usize = 40;
const CELLS_PER_DOUBLING: f64 = 4.0;

type BudgetCounts = [AtomicU64; CELLS];

/// The budgets of all watches.
static ALL: BudgetCounts = [const { AtomicU64::new(0) }; CELLS];
/// The budgets of watches whose polls are ticked.
static TICKED: BudgetCounts = [const { AtomicU64::new(0) }; CELLS];

fn cell_of(nanos: u64) -> usize {
    let doublings = (nanos as f64 / 1e6).max(1.0).log2();
    ((doublings * CELLS_PER_DOUBLING) as usize).min(CELLS - 1)
}

/// Returns the shortest budget of a cell in nanoseconds, rounded down.
fn shortest_nanos_of(cell: usize) -> u64 {
    ((cell as f64 / CELLS_PER_DOUBLING).exp2() * 999_999.0) as u64
}

fn first_in_use(counts: &BudgetCounts) -> Option<usize> {
    counts.iter().position(|count| count.load(Relaxed) > 0)
}

fn shortest_in_use(counts: &BudgetCounts) -> Option<Duration> {
    first_in_use(counts).map(|cell| Duration::from_nanos(shortest_nanos_of(cell)))
}

/// Returns the budget from which on all budgets share a cell.
fn longest() -> Duration {
    Duration::from_nanos(shortest_nanos_of(CELLS - 1))
}

/// Returns the shortest budget in use, or up to a fifth less; from 1 ms to 0.9 s.
pub(crate) fn shortest() -> Duration {
    shortest_in_use(&ALL).unwrap_or_else(longest)
}

/// Returns the shortest budget of ticked polls, if there are any.
pub(crate) fn shortest_ticked() -> Option<Duration> {
    shortest_in_use(&TICKED)
}

/// Keeps a budget in use until it is dropped.
pub(crate) struct BudgetToken {
    counts: &'static BudgetCounts,
    cell: usize,
}

impl BudgetToken {
    pub(crate) fn new(nanos: u64) -> Self {
        Self::in_counts(&ALL, nanos)
    }

    /// Makes the second token of a watch whose polls are ticked.
    pub(crate) fn ticked(nanos: u64) -> Self {
        Self::in_counts(&TICKED, nanos)
    }

    fn in_counts(counts: &'static BudgetCounts, nanos: u64) -> Self {
        let cell = cell_of(nanos);
        let shortest = first_in_use(counts);
        counts[cell].fetch_add(1, Relaxed);
        if shortest.is_none_or(|shortest| cell < shortest) {
            // The sentinel may sleep for as long as the shortest budget was before.
            SENTINEL_PARKER.unpark();
        }
        Self { counts, cell }
    }
}

impl Drop for BudgetToken {
    fn drop(&mut self) {
        self.counts[self.cell].fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortest_of_a_cell_is_at_most_any_budget_in_it() {
        let ms = 1_000_000;
        for nanos in [ms, 2 * ms, 3 * ms, 10 * ms, 511 * ms, 512 * ms, u64::MAX] {
            let shortest = shortest_nanos_of(cell_of(nanos));
            assert!(shortest <= nanos, "{nanos}");
            assert!(nanos > 512 * ms || shortest > nanos / 5 * 4, "{nanos}");
        }
        assert_eq!((cell_of(0), cell_of(ms)), (0, 0));
    }

    #[test]
    fn shortest_counts_a_budget_while_it_is_in_use() {
        let in_use = (BudgetToken::new(1), BudgetToken::ticked(1));
        assert_eq!(shortest(), Duration::from_nanos(999_999));
        assert_eq!(shortest_ticked(), Some(shortest()));
        drop(in_use);
    }

    #[test]
    fn shortest_is_that_of_the_first_cell_in_use() {
        let counts: BudgetCounts = [const { AtomicU64::new(0) }; CELLS];
        assert_eq!(shortest_in_use(&counts), None);
        for (cell, shortest) in [(39, 861), (4, 1), (12, 7)] {
            counts[cell].store(1, Relaxed);
            let first = shortest_in_use(&counts).unwrap();
            assert!(first.as_millis() <= shortest, "{first:?}");
        }
        assert_eq!(first_in_use(&counts), Some(4));
        assert!((800..900).contains(&longest().as_millis()));
    }

    #[test]
    fn budget_is_in_use_until_its_token_is_dropped() {
        // No other test uses this budget.
        let nanos = 650_000_000;
        let cell = cell_of(nanos);
        let in_use = || [&ALL, &TICKED].map(|counts| counts[cell].load(Relaxed));
        let ticked = (BudgetToken::new(nanos), BudgetToken::ticked(nanos));
        assert_eq!(in_use(), [1, 1]);
        let exact = BudgetToken::new(nanos);
        assert_eq!(in_use(), [2, 1]);
        drop(ticked);
        assert_eq!(in_use(), [1, 0]);
        drop(exact);
        assert_eq!(in_use(), [0, 0]);
    }
}

//! Which budgets are in use, by order of magnitude: how often the sentinel has to look depends on
//! the shortest, and a watch with a short one may come and go.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::slot::SENTINEL_PARKER;

/// Four cells to a doubling, from 1 ms; the first counts the budgets below as well, the last all
/// above.
const CELLS: usize = 40;
const TO_A_DOUBLING: f64 = 4.0;

type Counts = [AtomicU64; CELLS];

static IN_USE: Counts = [const { AtomicU64::new(0) }; CELLS];
/// Those of watches whose polls are timed by ticks.
static BY_TICKS: Counts = [const { AtomicU64::new(0) }; CELLS];

fn cell_of(nanos: u64) -> usize {
    let doublings = (nanos as f64 / 1e6).max(1.0).log2();
    ((doublings * TO_A_DOUBLING) as usize).min(CELLS - 1)
}

/// The shortest budget of a cell, in nanoseconds; rounded down.
fn shortest_of(cell: usize) -> u64 {
    ((cell as f64 / TO_A_DOUBLING).exp2() * 999_999.0) as u64
}

fn first_in_use(counts: &Counts) -> Option<usize> {
    counts.iter().position(|count| count.load(Relaxed) > 0)
}

fn shortest_in_use(counts: &Counts) -> Option<Duration> {
    first_in_use(counts).map(|cell| Duration::from_nanos(shortest_of(cell)))
}

/// All budgets from there on count as one.
fn longest() -> Duration {
    Duration::from_nanos(shortest_of(CELLS - 1))
}

/// The shortest budget in use, or up to a fifth less; between 1 ms and 0.9 s.
pub(crate) fn shortest() -> Duration {
    shortest_in_use(&IN_USE).unwrap_or_else(longest)
}

/// The same of those whose polls are timed by ticks, if there are any.
pub(crate) fn shortest_by_ticks() -> Option<Duration> {
    shortest_in_use(&BY_TICKS)
}

/// A budget that is in use as long as this lives.
pub(crate) struct BudgetToken {
    cell: usize,
    by_ticks: bool,
}

impl BudgetToken {
    pub(crate) fn new(nanos: u64, by_ticks: bool) -> Self {
        let cell = cell_of(nanos);
        let is_new = |counts: &Counts| {
            let shortest = first_in_use(counts);
            counts[cell].fetch_add(1, Relaxed);
            shortest.is_none_or(|shortest| cell < shortest)
        };
        if is_new(&IN_USE) | (by_ticks && is_new(&BY_TICKS)) {
            // It may nap for as long as the shortest was until now.
            SENTINEL_PARKER.unpark();
        }
        Self { cell, by_ticks }
    }
}

impl Drop for BudgetToken {
    fn drop(&mut self) {
        IN_USE[self.cell].fetch_sub(1, Relaxed);
        if self.by_ticks {
            BY_TICKS[self.cell].fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_of_a_cell_is_at_most_any_budget_in_it() {
        let ms = 1_000_000;
        for nanos in [ms, 2 * ms, 3 * ms, 10 * ms, 511 * ms, 512 * ms, u64::MAX] {
            let shortest = shortest_of(cell_of(nanos));
            assert!(shortest <= nanos, "{nanos}");
            assert!(nanos > 512 * ms || shortest > nanos / 5 * 4, "{nanos}");
        }
        assert_eq!((cell_of(0), cell_of(ms)), (0, 0));
    }

    #[test]
    fn the_shortest_counts_while_it_is_in_use() {
        let in_use = BudgetToken::new(1, true);
        assert_eq!(shortest(), Duration::from_nanos(999_999));
        assert_eq!(shortest_by_ticks(), Some(shortest()));
        drop(in_use);
    }

    #[test]
    fn the_first_cell_in_use_has_the_shortest() {
        let counts: Counts = [const { AtomicU64::new(0) }; CELLS];
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
    fn a_budget_is_in_use_as_long_as_its_watch() {
        // No other test has one like that.
        let nanos = 650_000_000;
        let cell = cell_of(nanos);
        let in_use = || [&IN_USE, &BY_TICKS].map(|counts| counts[cell].load(Relaxed));
        let ticked = BudgetToken::new(nanos, true);
        assert_eq!(in_use(), [1, 1]);
        let exact = BudgetToken::new(nanos, false);
        assert_eq!(in_use(), [2, 1]);
        drop(ticked);
        assert_eq!(in_use(), [1, 0]);
        drop(exact);
        assert_eq!(in_use(), [0, 0]);
    }
}

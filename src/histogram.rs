//! Floor 1: counts durations in a histogram with fixed bounds.
//!
//! The cells follow the preferred numbers R10 (ISO 3): ten a decade, each about 1.26 times the one before, from 100 ns
//! to 100 s. The bounds are decimal and not powers of two. So "how many polls took more than 10 ms?" has an exact
//! answer. Each bucket bound of the Prometheus text is one of them, so those buckets are exact too.

use std::time::Duration;

/// The preferred numbers R10 of ISO 3, times 100.
const R10: [u64; 10] = [100, 125, 160, 200, 250, 315, 400, 500, 630, 800];
/// Decades from 100 ns to 100 s.
const DECADES: usize = 9;

/// The upper bounds of the cells, inclusive as in Prometheus: cell `i` holds
/// `(BOUNDS_NANOS[i - 1], BOUNDS_NANOS[i]]`. One more cell holds all longer durations.
pub(crate) const BOUNDS_NANOS: [u64; DECADES * 10 + 1] = {
    let mut bounds = [0; DECADES * 10 + 1];
    let mut scale = 1;
    let mut i = 0;
    while i < DECADES * 10 {
        bounds[i] = R10[i % 10] * scale;
        if i % 10 == 9 {
            scale *= 10;
        }
        i += 1;
    }
    bounds[i] = 100 * scale;
    bounds
};

/// The number of cells of a histogram.
pub(crate) const CELLS: usize = BOUNDS_NANOS.len() + 1;

/// For each power of two, the first cell for values of that size.
///
/// At most three bounds lie between two powers of two, so a look-up takes one table entry and three comparisons.
const FIRST_CELL: [u8; 64] = {
    let mut first = [0; 64];
    let mut power = 0;
    while power < 64 {
        let mut cell = 0;
        while cell < BOUNDS_NANOS.len() && BOUNDS_NANOS[cell] < 1 << power {
            cell += 1;
        }
        first[power] = cell as u8;
        power += 1;
    }
    first
};

/// [`BOUNDS_NANOS`] and three bounds that no value exceeds, so that a look-up never reads past the end.
const PADDED_BOUNDS_NANOS: [u64; BOUNDS_NANOS.len() + 3] = {
    let mut padded = [u64::MAX; BOUNDS_NANOS.len() + 3];
    let mut i = 0;
    while i < BOUNDS_NANOS.len() {
        padded[i] = BOUNDS_NANOS[i];
        i += 1;
    }
    padded
};

/// Returns the cell of a duration.
#[inline]
pub(crate) fn cell_of(nanos: u64) -> usize {
    // The most frequent polls find nothing to do and are the shortest. A predicted branch spares them the look-up.
    if nanos <= BOUNDS_NANOS[0] {
        return 0;
    }
    let power = nanos.ilog2() as usize;
    let first = usize::from(FIRST_CELL[power]);
    let beyond = |i: usize| usize::from(nanos > PADDED_BOUNDS_NANOS[first + i]);
    first + beyond(0) + beyond(1) + beyond(2)
}

/// A copy of a histogram's counts.
#[derive(Clone, Debug)]
pub(crate) struct Distribution {
    pub(crate) cells: [u64; CELLS],
}

impl Default for Distribution {
    fn default() -> Self {
        Self { cells: [0; CELLS] }
    }
}

impl Distribution {
    pub(crate) fn count(&self) -> u64 {
        self.cells.iter().sum()
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, count) in self.cells.iter_mut().zip(&other.cells) {
            *sum += count;
        }
    }

    /// Returns the number of values of at most `bound`, which must be one of [`BOUNDS_NANOS`].
    #[cfg(feature = "metrics")]
    pub(crate) fn at_most(&self, bound: u64) -> u64 {
        let cell = BOUNDS_NANOS.partition_point(|b| *b <= bound);
        self.cells[..cell].iter().sum()
    }

    /// Returns the value that a share `q` of all values does not exceed, by linear interpolation in its cell.
    pub(crate) fn quantile(&self, q: f64, longest: u64) -> Option<Duration> {
        let count = self.count();
        if count == 0 || q.is_nan() {
            return None;
        }
        let rank = q.clamp(0.0, 1.0) * count as f64;
        let mut below = 0;
        for (cell, &here) in self.cells.iter().enumerate() {
            if here > 0 && (below + here) as f64 >= rank {
                let lower = if cell == 0 { 0 } else { BOUNDS_NANOS[cell - 1] };
                let upper = BOUNDS_NANOS
                    .get(cell)
                    .map_or(longest, |b| (*b).min(longest));
                let share = ((rank - below as f64) / here as f64).max(0.0);
                let inside = upper.saturating_sub(lower) as f64 * share;
                return Some(Duration::from_nanos((lower + inside as u64).min(longest)));
            }
            below += here;
        }
        Some(Duration::from_nanos(longest))
    }
}

/// The bounds of the Prometheus buckets: 1, 2 and 5 of each decade from 1 µs to 10 s.
#[cfg(feature = "metrics")]
pub(crate) const PUBLISHED_BOUNDS_NANOS: [u64; 22] = {
    let mut bounds = [0; 22];
    let mut scale = 1_000;
    let mut i = 0;
    while i < 21 {
        bounds[i] = scale * [1, 2, 5][i % 3];
        if i % 3 == 2 {
            scale *= 10;
        }
        i += 1;
    }
    bounds[21] = scale;
    bounds
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bounds_grow_by_at_most_28_percent() {
        for pair in BOUNDS_NANOS.windows(2) {
            assert!(pair[0] < pair[1]);
            assert!(pair[1] as f64 / pair[0] as f64 <= 1.28, "{pair:?}");
        }
        assert_eq!(BOUNDS_NANOS[0], 100);
        assert_eq!(BOUNDS_NANOS[BOUNDS_NANOS.len() - 1], 100_000_000_000);
    }

    #[test]
    #[cfg(feature = "metrics")]
    fn published_bounds_are_bounds_of_cells() {
        for bound in PUBLISHED_BOUNDS_NANOS {
            assert!(BOUNDS_NANOS.contains(&bound), "{bound}");
        }
        assert_eq!(PUBLISHED_BOUNDS_NANOS[0], 1_000);
        assert_eq!(PUBLISHED_BOUNDS_NANOS[21], 10_000_000_000);
    }

    #[test]
    fn bounds_between_two_powers_of_two_are_at_most_three() {
        for power in 0..63 {
            let range = 1u64 << power..1 << (power + 1);
            let inside = BOUNDS_NANOS.iter().filter(|bound| range.contains(bound));
            assert!(inside.count() <= 3, "{range:?}");
        }
    }

    #[test]
    fn cell_of_a_bound_is_the_cell_below_it() {
        for (cell, bound) in BOUNDS_NANOS.into_iter().enumerate() {
            assert_eq!(cell_of(bound), cell);
            assert_eq!(cell_of(bound + 1), cell + 1);
        }
        assert_eq!(cell_of(0), 0);
        assert_eq!(cell_of(u64::MAX), CELLS - 1);
    }

    proptest! {
        #[test]
        fn cell_of_agrees_with_a_search(nanos in prop_oneof![0..u64::MAX, 0..200_000_000_000u64, 0..100_000u64]) {
            prop_assert_eq!(cell_of(nanos), BOUNDS_NANOS.partition_point(|b| *b < nanos));
        }

        #[test]
        fn quantile_error_is_less_than_a_cell(mut values in prop::collection::vec(100..50_000_000_000u64, 1..300), q in 0.0..=1.0f64) {
            let mut distribution = Distribution::default();
            for value in &values {
                distribution.cells[cell_of(*value)] += 1;
            }
            values.sort_unstable();
            let longest = values[values.len() - 1];
            let rank = ((q * values.len() as f64).ceil() as usize).max(1) - 1;
            let exact = values[rank] as f64;
            let estimate = distribution.quantile(q, longest).unwrap().as_nanos() as f64;
            prop_assert!(estimate <= exact * 1.28 + 1.0 && estimate * 1.28 + 101.0 >= exact, "{} for {}", estimate, exact);
        }
    }

    #[test]
    fn quantile_of_no_values_or_nan_is_none() {
        assert_eq!(Distribution::default().quantile(0.5, 0), None);
        let mut one = Distribution::default();
        one.cells[cell_of(5_000)] = 1;
        assert_eq!(one.quantile(f64::NAN, 5_000), None);
        assert_eq!(one.quantile(7.0, 5_000), Some(Duration::from_nanos(5_000)));
        assert_eq!(one.quantile(1.0, 4_900), Some(Duration::from_nanos(4_900)));
    }
}

//! Floor 1: where the length of a poll falls.
//!
//! The cells follow the preferred numbers R10 (ISO 3): ten to a decade, each about 1.26 times the
//! one before, from 100 ns to 100 s. Decimal bounds and not powers of two, because a person asks
//! "how many polls ran past 10 ms?" and the answer should be a cell's edge, not an interpolation;
//! every bound that Prometheus is shown is one of them, so its buckets are exact.

use std::time::Duration;

const R10: [u64; 10] = [100, 125, 160, 200, 250, 315, 400, 500, 630, 800];
const DECADES: usize = 9;

/// Upper bounds in nanoseconds, inclusive as Prometheus has it: cell `i` holds
/// `(BOUNDS[i - 1], BOUNDS[i]]`; one cell more holds whatever is longer than the last.
pub(crate) const BOUNDS: [u64; DECADES * 10 + 1] = {
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

/// How many cells a histogram has.
pub(crate) const CELLS: usize = BOUNDS.len() + 1;

/// For each power of two, the first cell that a value of that size can fall into.
///
/// Between two powers of two lie at most three bounds, so a look-up is one table entry and three
/// comparisons.
const FIRST_CELL: [u8; 64] = {
    let mut first = [0; 64];
    let mut power = 0;
    while power < 64 {
        let mut cell = 0;
        while cell < BOUNDS.len() && BOUNDS[cell] < 1 << power {
            cell += 1;
        }
        first[power] = cell as u8;
        power += 1;
    }
    first
};

/// `BOUNDS` with three more at the end that nothing exceeds, so that a look-up never runs out.
const PADDED: [u64; BOUNDS.len() + 3] = {
    let mut padded = [u64::MAX; BOUNDS.len() + 3];
    let mut i = 0;
    while i < BOUNDS.len() {
        padded[i] = BOUNDS[i];
        i += 1;
    }
    padded
};

/// The cell of a poll of `nanos`.
#[inline]
pub(crate) fn cell_of(nanos: u64) -> usize {
    // The commonest polls of all, those that find nothing to do, are the shortest; a branch that is
    // foreseen takes the whole look-up off the way to the next poll.
    if nanos <= BOUNDS[0] {
        return 0;
    }
    let power = nanos.ilog2() as usize;
    let first = usize::from(FIRST_CELL[power]);
    let beyond = |i: usize| usize::from(nanos > PADDED[first + i]);
    first + beyond(0) + beyond(1) + beyond(2)
}

/// Counts by cell, read once and then at rest.
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
        for (mine, theirs) in self.cells.iter_mut().zip(&other.cells) {
            *mine += theirs;
        }
    }

    /// How many values were at most `bound`, which must be one of [`BOUNDS`].
    #[cfg(feature = "metrics")]
    pub(crate) fn at_most(&self, bound: u64) -> u64 {
        let cell = BOUNDS.partition_point(|b| *b <= bound);
        self.cells[..cell].iter().sum()
    }

    /// The value below which a share `q` of all lies, by linear interpolation in its cell.
    pub(crate) fn quantile(&self, q: f64, longest: u64) -> Option<Duration> {
        let count = self.count();
        if count == 0 || q.is_nan() {
            return None;
        }
        let rank = q.clamp(0.0, 1.0) * count as f64;
        let mut below = 0;
        for (cell, &here) in self.cells.iter().enumerate() {
            if here > 0 && (below + here) as f64 >= rank {
                let lower = if cell == 0 { 0 } else { BOUNDS[cell - 1] };
                let upper = BOUNDS.get(cell).map_or(longest, |b| (*b).min(longest));
                let share = ((rank - below as f64) / here as f64).max(0.0);
                let inside = upper.saturating_sub(lower) as f64 * share;
                return Some(Duration::from_nanos((lower + inside as u64).min(longest)));
            }
            below += here;
        }
        Some(Duration::from_nanos(longest))
    }
}

/// The bounds that Prometheus is shown: 1, 2 and 5 of each decade from 1 µs to 10 s, in nanoseconds.
#[cfg(feature = "metrics")]
pub(crate) const PUBLISHED_BOUNDS: [u64; 22] = {
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
    fn bounds_rise_by_at_most_28_percent() {
        for pair in BOUNDS.windows(2) {
            assert!(pair[0] < pair[1]);
            assert!(pair[1] as f64 / pair[0] as f64 <= 1.28, "{pair:?}");
        }
        assert_eq!(BOUNDS[0], 100);
        assert_eq!(BOUNDS[BOUNDS.len() - 1], 100_000_000_000);
    }

    #[test]
    #[cfg(feature = "metrics")]
    fn every_published_bound_is_the_edge_of_a_cell() {
        for bound in PUBLISHED_BOUNDS {
            assert!(BOUNDS.contains(&bound), "{bound}");
        }
        assert_eq!(PUBLISHED_BOUNDS[0], 1_000);
        assert_eq!(PUBLISHED_BOUNDS[21], 10_000_000_000);
    }

    #[test]
    fn at_most_three_bounds_lie_between_two_powers_of_two() {
        for power in 0..63 {
            let range = 1u64 << power..1 << (power + 1);
            let inside = BOUNDS.iter().filter(|bound| range.contains(bound));
            assert!(inside.count() <= 3, "{range:?}");
        }
    }

    #[test]
    fn edges_belong_to_the_cell_below_them() {
        for (cell, bound) in BOUNDS.into_iter().enumerate() {
            assert_eq!(cell_of(bound), cell);
            assert_eq!(cell_of(bound + 1), cell + 1);
        }
        assert_eq!(cell_of(0), 0);
        assert_eq!(cell_of(u64::MAX), CELLS - 1);
    }

    proptest! {
        #[test]
        fn the_table_agrees_with_a_search(nanos in prop_oneof![0..u64::MAX, 0..200_000_000_000u64, 0..100_000u64]) {
            prop_assert_eq!(cell_of(nanos), BOUNDS.partition_point(|b| *b < nanos));
        }

        #[test]
        fn a_quantile_is_off_by_less_than_a_cell(mut values in prop::collection::vec(100..50_000_000_000u64, 1..300), q in 0.0..=1.0f64) {
            let mut distribution = Distribution::default();
            for value in &values {
                distribution.cells[cell_of(*value)] += 1;
            }
            values.sort_unstable();
            let longest = values[values.len() - 1];
            let rank = ((q * values.len() as f64).ceil() as usize).max(1) - 1;
            let exact = values[rank] as f64;
            let told = distribution.quantile(q, longest).unwrap().as_nanos() as f64;
            prop_assert!(told <= exact * 1.28 + 1.0 && told * 1.28 + 101.0 >= exact, "{} for {}", told, exact);
        }
    }

    #[test]
    fn a_quantile_of_nothing_or_of_nan_is_none() {
        assert_eq!(Distribution::default().quantile(0.5, 0), None);
        let mut one = Distribution::default();
        one.cells[cell_of(5_000)] = 1;
        assert_eq!(one.quantile(f64::NAN, 5_000), None);
        assert_eq!(one.quantile(7.0, 5_000), Some(Duration::from_nanos(5_000)));
        assert_eq!(one.quantile(1.0, 4_900), Some(Duration::from_nanos(4_900)));
    }
}

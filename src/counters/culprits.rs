//! The published sums of culprits: the time over budget by watch and function.
//!
//! The worst culprits have their own series. The others of a watch share the series [`OTHER`]. The set of the worst changes,
//! but a counter must not decrease. So a culprit adds to its own series while it is one of the worst, and otherwise to the
//! shared one. Time that was added never moves.

use std::sync::Arc;

use crate::sync::{Lock, LockGuard};
use crate::watch::OTHER;

/// The culprits with their own series at one time, because each is a series in Prometheus.
const MAX_SERIES: usize = 50;
/// The known culprits, which bounds the memory. Further ones count as others of their watch.
const MAX_KNOWN: usize = 1_000;

/// The sums of one culprit, in nanoseconds.
#[derive(Debug)]
struct CulpritSum {
    watch: Arc<str>,
    function: Arc<str>,
    has_series: bool,
    in_series: u64,
    total: u64,
}

/// All sums, in the order of their first time. A report searches them one by one: reports are rare, and the worst are
/// counted one by one as well.
#[derive(Debug, Default)]
pub(crate) struct CulpritSums {
    known: Vec<CulpritSum>,
    /// The nanoseconds in the shared series, by watch.
    others: Vec<(Arc<str>, u64)>,
}

/// One series: nanoseconds past the budget, by watch and function.
#[derive(Debug, PartialEq)]
pub(crate) struct CulpritCount {
    pub(crate) watch: Arc<str>,
    pub(crate) culprit: Arc<str>,
    pub(crate) over_budget: u64,
}

static SUMS: Lock<CulpritSums> = Lock::new(CulpritSums {
    known: Vec::new(),
    others: Vec::new(),
});

/// Locks the sums. No code panics under this lock, and the sums would be consistent even then.
fn lock() -> LockGuard<'static, CulpritSums> {
    SUMS.lock()
}

/// Adds nanoseconds over budget to a culprit.
pub(crate) fn count_culprit(watch: &Arc<str>, culprit: &Arc<str>, nanos: u64) {
    lock().add(watch, culprit, nanos);
}

/// Returns each series of the process.
#[cfg(feature = "metrics")]
pub(crate) fn culprits() -> Vec<CulpritCount> {
    lock().counts()
}

impl CulpritSums {
    pub(crate) fn add(&mut self, watch: &Arc<str>, culprit: &Arc<str>, nanos: u64) {
        // A report past the limit of its watchdog names its culprit `other` too. Both share one series.
        let index = match **culprit == *OTHER {
            true => None,
            false => self.index_of(watch, culprit),
        };
        if let Some(index) = index {
            let sum = &mut self.known[index];
            sum.total = sum.total.saturating_add(nanos);
            let total = sum.total;
            if !sum.has_series && (self.has_free_series() || self.evict_smallest(total)) {
                self.known[index].has_series = true;
            }
        }
        let known = index.map(|index| &mut self.known[index]);
        let sum = match known.filter(|sum| sum.has_series) {
            Some(sum) => &mut sum.in_series,
            None => self.others_of(watch),
        };
        *sum = sum.saturating_add(nanos);
    }

    /// Returns the place of a culprit's sums. `None` if they would be too many.
    fn index_of(&mut self, watch: &Arc<str>, function: &Arc<str>) -> Option<usize> {
        let mut known = self.known.iter();
        let index = known.position(|sum| sum.watch == *watch && sum.function == *function);
        if index.is_some() || self.known.len() >= MAX_KNOWN {
            return index;
        }
        self.known.push(CulpritSum {
            watch: Arc::clone(watch),
            function: Arc::clone(function),
            has_series: false,
            in_series: 0,
            total: 0,
        });
        Some(self.known.len() - 1)
    }

    fn has_free_series(&self) -> bool {
        self.known.iter().filter(|sum| sum.has_series).count() < MAX_SERIES
    }

    fn others_of(&mut self, watch: &Arc<str>) -> &mut u64 {
        let index = self.others.iter().position(|(name, _)| name == watch);
        let index = index.unwrap_or_else(|| {
            self.others.push((Arc::clone(watch), 0));
            self.others.len() - 1
        });
        &mut self.others[index].1
    }

    /// Takes the series of the smallest sum away, if that is smaller than `total`.
    fn evict_smallest(&mut self, total: u64) -> bool {
        let worst = self.known.iter_mut().filter(|sum| sum.has_series);
        let Some(least) = worst.min_by_key(|sum| sum.total) else {
            return false;
        };
        let is_less = least.total < total;
        least.has_series = !is_less;
        is_less
    }

    /// Returns the sum over all series.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn total(&self) -> u128 {
        let worst = self.known.iter().map(|sum| sum.in_series);
        worst
            .chain(self.others.iter().map(|(_, nanos)| *nanos))
            .map(u128::from)
            .sum()
    }

    #[cfg_attr(not(any(test, feature = "metrics")), expect(dead_code))]
    pub(crate) fn counts(&self) -> Vec<CulpritCount> {
        let count = |watch: &Arc<str>, culprit: &Arc<str>, over_budget: u64| CulpritCount {
            watch: Arc::clone(watch),
            culprit: Arc::clone(culprit),
            over_budget,
        };
        let worst = self.known.iter().filter(|sum| sum.has_series);
        let worst = worst.map(|sum| count(&sum.watch, &sum.function, sum.in_series));
        let other = OTHER.into();
        let others = self.others.iter();
        let others = others.map(|(watch, nanos)| count(watch, &other, *nanos));
        worst.chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum_of(counts: &[CulpritCount], culprit: &str) -> Option<u64> {
        let mut counts = counts.iter();
        let count = counts.find(|count| &*count.culprit == culprit)?;
        Some(count.over_budget)
    }

    #[test]
    fn add_of_a_worse_culprit_takes_a_series_and_decreases_none() {
        let mut sums = CulpritSums::default();
        let watch: Arc<str> = "w".into();
        let mut add = |culprit: &str, nanos| {
            sums.add(&watch, &culprit.into(), nanos);
            sums.counts()
        };
        for number in 0..MAX_SERIES {
            add(&format!("f{number}"), 100 + number as u64);
        }
        let counts = add("late", 90);
        assert_eq!(sum_of(&counts, "late"), None);
        assert_eq!(sum_of(&counts, OTHER), Some(90));
        // It is now worse than one of the others, and gets its series. Its earlier time stays in the shared one.
        let counts = add("late", 20);
        assert_eq!(sum_of(&counts, "late"), Some(20));
        assert_eq!(sum_of(&counts, OTHER), Some(90));
        assert_eq!(sum_of(&counts, "f0"), None);
        // The evicted one adds to the shared series, until it is worse again.
        let counts = add("f0", 1);
        assert_eq!(sum_of(&counts, OTHER), Some(91));
        let counts = add("f0", 50);
        assert_eq!(sum_of(&counts, "f0"), Some(150));
        assert_eq!(counts.len(), MAX_SERIES + 1);
    }

    /// Reports past the limit name their culprit `other`, and a function may have this name.
    #[test]
    fn counts_of_others_are_one_series() {
        let mut sums = CulpritSums::default();
        let watch: Arc<str> = "w".into();
        for nanos in 0..=MAX_SERIES as u64 {
            sums.add(&watch, &format!("f{nanos}").into(), nanos);
        }
        sums.add(&watch, &OTHER.into(), 1_000);
        let counts = sums.counts();
        let others = counts.iter().filter(|count| &*count.culprit == OTHER);
        assert_eq!(others.map(|count| count.over_budget).sum::<u64>(), 1_000);
        assert_eq!(counts.len(), MAX_SERIES + 1);
        sums.add(&watch, &"f1".into(), u64::MAX);
        sums.add(&watch, &"f1".into(), u64::MAX);
        assert_eq!(sum_of(&sums.counts(), "f1"), Some(u64::MAX));
    }

    #[test]
    fn add_past_the_limit_counts_as_other() {
        let mut sums = CulpritSums::default();
        let watch: Arc<str> = "w".into();
        for number in 0..MAX_KNOWN + 10 {
            sums.add(&watch, &number.to_string().into(), 1);
        }
        assert_eq!(sums.known.len(), MAX_KNOWN);
        let counts = sums.counts();
        let all: u64 = counts.iter().map(|count| count.over_budget).sum();
        assert_eq!(all, MAX_KNOWN as u64 + 10, "nothing is lost");
        assert_eq!(counts.len(), MAX_SERIES + 1);
    }
}

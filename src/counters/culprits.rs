//! The published sums of culprits: the time over budget by watch and function.
//!
//! The worst culprits have their own series. The others of a watch share the series [`OTHER`]. The set of the worst changes,
//! but a counter must not decrease. So a culprit adds to its own series while it is one of the worst, and otherwise to the
//! shared one. Time that was added never moves.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::sync::{Lock, LockGuard};
use crate::watch::OTHER;

/// The culprits with their own series at one time, because each is a series in Prometheus.
const MAX_SERIES: usize = 50;
/// The known culprits, which bounds the memory. Further ones count as others of their watch.
const MAX_KNOWN: usize = 1_000;

/// A watch, and a function.
type Name = (Arc<str>, Arc<str>);

/// The sums of one culprit, in nanoseconds.
#[derive(Debug, Default)]
struct Sum {
    has_series: bool,
    in_series: u64,
    total: u64,
}

#[derive(Debug, Default)]
pub(crate) struct CulpritSums {
    known: BTreeMap<Name, Sum>,
    others: BTreeMap<Arc<str>, u64>,
}

/// One series: nanoseconds past the budget, by watch and function.
#[derive(Debug, PartialEq)]
pub(crate) struct CulpritCount {
    pub(crate) watch: Arc<str>,
    pub(crate) culprit: Arc<str>,
    pub(crate) over_budget: u64,
}

static SUMS: Lock<CulpritSums> = Lock::new(CulpritSums {
    known: BTreeMap::new(),
    others: BTreeMap::new(),
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
        let name = (Arc::clone(watch), Arc::clone(culprit));
        let worst = self.known.values().filter(|sum| sum.has_series).count();
        let is_full = self.known.len() >= MAX_KNOWN && !self.known.contains_key(&name);
        // A report past the limit of its watchdog names its culprit `other` too. Both share one series.
        if !is_full && **culprit != *OTHER {
            let sum = self.known.entry(name.clone()).or_default();
            sum.total = sum.total.saturating_add(nanos);
            let total = sum.total;
            if !sum.has_series && (worst < MAX_SERIES || self.evict_smallest(total)) {
                self.known.entry(name.clone()).or_default().has_series = true;
            }
        }
        let sum = match self.known.get_mut(&name).filter(|sum| sum.has_series) {
            Some(sum) => &mut sum.in_series,
            None => self.others.entry(Arc::clone(watch)).or_default(),
        };
        *sum = sum.saturating_add(nanos);
    }

    /// Takes the series of the smallest sum away, if that is smaller than `total`.
    fn evict_smallest(&mut self, total: u64) -> bool {
        let worst = self.known.values_mut().filter(|sum| sum.has_series);
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
        let worst = self.known.values().map(|sum| sum.in_series);
        worst
            .chain(self.others.values().copied())
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
        let worst = self.known.iter().filter(|(_, sum)| sum.has_series);
        let worst = worst.map(|((watch, culprit), sum)| count(watch, culprit, sum.in_series));
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

//! What functions held workers for, past their budgets: what is published of it.
//!
//! The worst have series of their own, the rest of a watch are added up as [`OTHER`]. Which are the worst
//! changes; a counter must not go back. So what is counted while a culprit is among the worst goes to its
//! own series, and what is counted while it is not to the other one, for ever.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::sync::{Lock, LockGuard};
use crate::watch::OTHER;

/// How many have series of their own at one time.
const WORST: usize = 50;
/// How many are known at all. Further ones are among the others of their watch.
const MOST: usize = 1_000;

/// A watch, and a function.
type Name = (Arc<str>, Arc<str>);

/// Nanoseconds.
#[derive(Debug, Default)]
struct Sum {
    is_worst: bool,
    as_worst: u64,
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

/// Nothing panics while it holds this lock; if it ever did, the sums would still be whole.
fn lock() -> LockGuard<'static, CulpritSums> {
    SUMS.lock()
}

/// Adds so many nanoseconds to what a function held a worker for.
pub(crate) fn count_culprit(watch: &Arc<str>, culprit: &Arc<str>, nanos: u64) {
    lock().add(watch, culprit, nanos);
}

/// Every series of the process.
#[cfg(feature = "metrics")]
pub(crate) fn culprits() -> Vec<CulpritCount> {
    lock().counts()
}

impl CulpritSums {
    pub(crate) fn add(&mut self, watch: &Arc<str>, culprit: &Arc<str>, nanos: u64) {
        let name = (Arc::clone(watch), Arc::clone(culprit));
        let worst = self.known.values().filter(|sum| sum.is_worst).count();
        let is_full = self.known.len() >= MOST && !self.known.contains_key(&name);
        // The others are called so by whoever reports as well, and are one series.
        if !is_full && **culprit != *OTHER {
            let sum = self.known.entry(name.clone()).or_default();
            sum.total = sum.total.saturating_add(nanos);
            let total = sum.total;
            if !sum.is_worst && (worst < WORST || self.relegate(total)) {
                self.known.entry(name.clone()).or_default().is_worst = true;
            }
        }
        let sum = match self.known.get_mut(&name).filter(|sum| sum.is_worst) {
            Some(sum) => &mut sum.as_worst,
            None => self.others.entry(Arc::clone(watch)).or_default(),
        };
        *sum = sum.saturating_add(nanos);
    }

    /// Makes room among the worst, if one of them is less than that.
    fn relegate(&mut self, total: u64) -> bool {
        let worst = self.known.values_mut().filter(|sum| sum.is_worst);
        let Some(least) = worst.min_by_key(|sum| sum.total) else {
            return false;
        };
        let is_less = least.total < total;
        least.is_worst = !is_less;
        is_less
    }

    /// Everything that was added, whether it is in a series now or was.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn total(&self) -> u128 {
        let worst = self.known.values().map(|sum| sum.as_worst);
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
        let worst = self.known.iter().filter(|(_, sum)| sum.is_worst);
        let worst = worst.map(|((watch, culprit), sum)| count(watch, culprit, sum.as_worst));
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
    fn the_worst_have_names_and_no_series_goes_back() {
        let mut sums = CulpritSums::default();
        let watch: Arc<str> = "w".into();
        let mut add = |culprit: &str, nanos| {
            sums.add(&watch, &culprit.into(), nanos);
            sums.counts()
        };
        for number in 0..WORST {
            add(&format!("f{number}"), 100 + number as u64);
        }
        let counts = add("late", 90);
        assert_eq!(sum_of(&counts, "late"), None);
        assert_eq!(sum_of(&counts, OTHER), Some(90));
        // Past the least of the worst it has a name, and what it had before stays where it was.
        let counts = add("late", 20);
        assert_eq!(sum_of(&counts, "late"), Some(20));
        assert_eq!(sum_of(&counts, OTHER), Some(90));
        assert_eq!(sum_of(&counts, "f0"), None);
        // The one that had to go counts among the others, until it is worse again.
        let counts = add("f0", 1);
        assert_eq!(sum_of(&counts, OTHER), Some(91));
        let counts = add("f0", 50);
        assert_eq!(sum_of(&counts, "f0"), Some(150));
        assert_eq!(counts.len(), WORST + 1);
    }

    /// Past the limit of culprits, reports name it themselves; and a function may be called so.
    #[test]
    fn the_others_are_one_series() {
        let mut sums = CulpritSums::default();
        let watch: Arc<str> = "w".into();
        for nanos in 0..=WORST as u64 {
            sums.add(&watch, &format!("f{nanos}").into(), nanos);
        }
        sums.add(&watch, &OTHER.into(), 1_000);
        let counts = sums.counts();
        let others = counts.iter().filter(|count| &*count.culprit == OTHER);
        assert_eq!(others.map(|count| count.over_budget).sum::<u64>(), 1_000);
        assert_eq!(counts.len(), WORST + 1);
        sums.add(&watch, &"f1".into(), u64::MAX);
        sums.add(&watch, &"f1".into(), u64::MAX);
        assert_eq!(sum_of(&sums.counts(), "f1"), Some(u64::MAX));
    }

    #[test]
    fn past_the_limit_they_are_others() {
        let mut sums = CulpritSums::default();
        let watch: Arc<str> = "w".into();
        for number in 0..MOST + 10 {
            sums.add(&watch, &number.to_string().into(), 1);
        }
        assert_eq!(sums.known.len(), MOST);
        let counts = sums.counts();
        let all: u64 = counts.iter().map(|count| count.over_budget).sum();
        assert_eq!(all, MOST as u64 + 10, "nothing is lost");
        assert_eq!(counts.len(), WORST + 1);
    }
}

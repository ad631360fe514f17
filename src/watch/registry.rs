//! Keeps the watches of one watchdog by name, and limits their number.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
#[cfg(feature = "metrics")]
use std::sync::atomic::Ordering::Relaxed;

use super::WatchCounters;
use crate::sync::{Lock, LockGuard};

/// The watch that all names past the limit share.
pub(crate) const OTHER: &str = "other";
/// The watch for an empty name. Prometheus treats an empty label like a missing one.
pub(crate) const UNNAMED: &str = "unnamed";

/// The watches of one watchdog, and its counters of polls that were not reported.
pub(crate) struct Registry {
    limit: usize,
    names: Lock<NamedWatches>,
    pub(crate) unreported: Unreported,
}

#[derive(Default)]
struct NamedWatches {
    counters: HashMap<Arc<str>, Arc<WatchCounters>>,
    has_warned: bool,
}

/// Counts the slow polls that were not reported, by reason.
#[derive(Debug, Default)]
pub(crate) struct Unreported {
    /// The queue of a reporter was full.
    pub(crate) dropped: AtomicU64,
    /// The watch had used up its reports of that second.
    pub(crate) rate_limited: AtomicU64,
    /// The poll was slow on a reporter's own thread.
    pub(crate) reentrant: AtomicU64,
    /// `allow_blocking` allowed the poll to be that long.
    pub(crate) allowed: AtomicU64,
    /// The process was suspended.
    pub(crate) suspended: AtomicU64,
    /// The thread waited for a processor, because the host was busy.
    pub(crate) starved: AtomicU64,
    /// The thread waited for a processor, because the container had used up its CPU limit.
    pub(crate) throttled: AtomicU64,
}

#[cfg(feature = "metrics")]
impl Unreported {
    pub(crate) fn add(&self, other: &Self) {
        let sums = [
            (&self.dropped, &other.dropped),
            (&self.rate_limited, &other.rate_limited),
            (&self.reentrant, &other.reentrant),
            (&self.allowed, &other.allowed),
            (&self.suspended, &other.suspended),
            (&self.starved, &other.starved),
            (&self.throttled, &other.throttled),
        ];
        for (sum, count) in sums {
            sum.fetch_add(count.load(Relaxed), Relaxed);
        }
    }
}

/// The result of [`Registry::get_or_register`].
pub(crate) struct Registered {
    pub(crate) counters: Arc<WatchCounters>,
    /// Whether this is the first name past the limit. The caller warns then.
    pub(crate) is_first_past_limit: bool,
}

impl Registry {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            names: Lock::default(),
            unreported: Unreported::default(),
        })
    }

    /// Returns the watch of that name, and makes it if it does not exist. Past the limit, returns the shared watch.
    pub(crate) fn get_or_register(&self, name: Cow<'static, str>) -> Registered {
        let name = if name.is_empty() {
            UNNAMED.into()
        } else {
            name
        };
        let mut names = self.lock();
        if let Some(counters) = names.counters.get(&*name) {
            return Registered {
                counters: Arc::clone(counters),
                is_first_past_limit: false,
            };
        }
        // The shared watch never counts against the limit, even where a caller asks for it by name.
        let named = names.counters.len() - usize::from(names.counters.contains_key(OTHER));
        if named < self.limit || name == OTHER {
            return Registered {
                counters: names.insert(name),
                is_first_past_limit: false,
            };
        }
        let is_first_past_limit = !std::mem::replace(&mut names.has_warned, true);
        let counters = match names.counters.get(OTHER) {
            Some(counters) => Arc::clone(counters),
            None => names.insert(OTHER.into()),
        };
        Registered {
            counters,
            is_first_past_limit,
        }
    }

    /// Returns the watch of that name, if it exists.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<WatchCounters>> {
        self.lock().counters.get(name).cloned()
    }

    /// Returns every watch, in no particular order.
    pub(crate) fn counters(&self) -> Vec<Arc<WatchCounters>> {
        self.lock().counters.values().cloned().collect()
    }

    fn lock(&self) -> LockGuard<'_, NamedWatches> {
        self.names.lock()
    }
}

impl NamedWatches {
    fn insert(&mut self, name: Cow<'static, str>) -> Arc<WatchCounters> {
        let name: Arc<str> = name.into();
        let counters = Arc::new(WatchCounters::new(Arc::clone(&name)));
        self.counters.insert(name, Arc::clone(&counters));
        counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(registered: &Registered) -> &str {
        &registered.counters.name
    }

    #[test]
    fn get_or_register_past_the_limit_shares_one_watch_and_asks_for_one_warning() {
        let registry = Registry::new(2);
        assert_eq!(name(&registry.get_or_register("a".into())), "a");
        assert_eq!(name(&registry.get_or_register("b".into())), "b");
        let third = registry.get_or_register("c".into());
        assert_eq!((name(&third), third.is_first_past_limit), ("other", true));
        let fourth = registry.get_or_register(String::from("d").into());
        assert_eq!(
            (name(&fourth), fourth.is_first_past_limit),
            ("other", false)
        );
        assert!(Arc::ptr_eq(&third.counters, &fourth.counters));
        assert_eq!(name(&registry.get_or_register("a".into())), "a");
        assert_eq!(registry.counters().len(), 3);
    }

    #[test]
    fn get_or_register_of_the_shared_name_does_not_count_against_the_limit() {
        let registry = Registry::new(1);
        assert_eq!(name(&registry.get_or_register("other".into())), "other");
        assert_eq!(name(&registry.get_or_register("a".into())), "a");
        assert!(registry.get_or_register("b".into()).is_first_past_limit);
    }

    #[test]
    fn get_or_register_of_an_empty_name_gives_unnamed() {
        let registry = Registry::new(1);
        assert_eq!(name(&registry.get_or_register("".into())), "unnamed");
    }

    #[cfg(feature = "metrics")]
    #[test]
    fn unreported_add_sums_each_reason() {
        let counts = |unreported: &Unreported| {
            let counts = [
                &unreported.dropped,
                &unreported.rate_limited,
                &unreported.reentrant,
                &unreported.allowed,
                &unreported.suspended,
                &unreported.starved,
                &unreported.throttled,
            ];
            counts.map(|count| count.load(Relaxed))
        };
        let unreported = Unreported {
            dropped: 1.into(),
            rate_limited: 2.into(),
            reentrant: 3.into(),
            allowed: 4.into(),
            suspended: 5.into(),
            starved: 6.into(),
            throttled: 7.into(),
        };
        let sum = Unreported::default();
        sum.add(&unreported);
        sum.add(&unreported);
        assert_eq!(counts(&sum), [2, 4, 6, 8, 10, 12, 14]);
    }
}

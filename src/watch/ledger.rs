//! The watches of one watchdog, by name, and how many there may be.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
#[cfg(feature = "metrics")]
use std::sync::atomic::Ordering::Relaxed;

use super::Core;
use crate::sync::{Lock, LockGuard};

/// The watch that names past the limit share.
pub(crate) const OTHER: &str = "other";
/// The watch of those that were given an empty name: a Prometheus label that is empty is no label.
pub(crate) const UNNAMED: &str = "unnamed";

/// Names, statistics and the counts that belong to no single watch.
pub(crate) struct Ledger {
    limit: usize,
    names: Lock<Names>,
    pub(crate) tally: Tally,
}

#[derive(Default)]
struct Names {
    cores: HashMap<Arc<str>, Arc<Core>>,
    warned: bool,
}

/// Reports that nobody got.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// A reporter's queue was full.
    pub(crate) dropped: AtomicU64,
    /// A watch had used up its reports of the second.
    pub(crate) rate_limited: AtomicU64,
    /// It was slow on a reporter's own thread.
    pub(crate) reentrant: AtomicU64,
    /// It was within what was declared to be allowed.
    pub(crate) allowed: AtomicU64,
    /// The process was not run.
    pub(crate) suspended: AtomicU64,
    /// Its thread was not run, because the host was busy …
    pub(crate) starved: AtomicU64,
    /// … or because of the container's limit of processor time.
    pub(crate) throttled: AtomicU64,
}

#[cfg(feature = "metrics")]
impl Tally {
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

/// What came of a name.
pub(crate) struct Registered {
    pub(crate) core: Arc<Core>,
    /// This is the first name that found no place of its own.
    pub(crate) first_past_limit: bool,
}

impl Ledger {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            names: Lock::default(),
            tally: Tally::default(),
        })
    }

    /// The watch of that name, made if there is none; past the limit, the one that is shared.
    pub(crate) fn get_or_register(&self, name: Cow<'static, str>) -> Registered {
        let name = if name.is_empty() {
            UNNAMED.into()
        } else {
            name
        };
        let mut names = self.lock();
        if let Some(core) = names.cores.get(&*name) {
            return Registered {
                core: Arc::clone(core),
                first_past_limit: false,
            };
        }
        // The shared watch has a place beyond the limit, whoever asks for it first.
        let own = names.cores.len() - usize::from(names.cores.contains_key(OTHER));
        if own < self.limit || name == OTHER {
            return Registered {
                core: names.insert(name),
                first_past_limit: false,
            };
        }
        let first_past_limit = !std::mem::replace(&mut names.warned, true);
        let core = match names.cores.get(OTHER) {
            Some(core) => Arc::clone(core),
            None => names.insert(OTHER.into()),
        };
        Registered {
            core,
            first_past_limit,
        }
    }

    /// The watch of that name, if there is one.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Core>> {
        self.lock().cores.get(name).cloned()
    }

    /// Every watch, in no order.
    pub(crate) fn cores(&self) -> Vec<Arc<Core>> {
        self.lock().cores.values().cloned().collect()
    }

    /// Nothing panics while it holds this lock; if it ever did, the names would still be whole.
    fn lock(&self) -> LockGuard<'_, Names> {
        self.names.lock()
    }
}

impl Names {
    fn insert(&mut self, name: Cow<'static, str>) -> Arc<Core> {
        let name: Arc<str> = name.into();
        let core = Arc::new(Core::new(Arc::clone(&name)));
        self.cores.insert(name, Arc::clone(&core));
        core
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(registered: &Registered) -> &str {
        &registered.core.name
    }

    #[test]
    fn past_the_limit_names_share_one_watch_and_one_warning_is_due() {
        let ledger = Ledger::new(2);
        assert_eq!(name(&ledger.get_or_register("a".into())), "a");
        assert_eq!(name(&ledger.get_or_register("b".into())), "b");
        let third = ledger.get_or_register("c".into());
        assert_eq!((name(&third), third.first_past_limit), ("other", true));
        let fourth = ledger.get_or_register(String::from("d").into());
        assert_eq!((name(&fourth), fourth.first_past_limit), ("other", false));
        assert!(Arc::ptr_eq(&third.core, &fourth.core));
        assert_eq!(name(&ledger.get_or_register("a".into())), "a");
        assert_eq!(ledger.cores().len(), 3);
    }

    #[test]
    fn the_shared_watch_takes_no_place_from_the_named_ones() {
        let ledger = Ledger::new(1);
        assert_eq!(name(&ledger.get_or_register("other".into())), "other");
        assert_eq!(name(&ledger.get_or_register("a".into())), "a");
        assert!(ledger.get_or_register("b".into()).first_past_limit);
    }

    #[test]
    fn an_empty_name_has_a_watch_that_says_so() {
        let ledger = Ledger::new(1);
        assert_eq!(name(&ledger.get_or_register("".into())), "unnamed");
    }

    #[cfg(feature = "metrics")]
    #[test]
    fn reports_that_nobody_got_are_added_up_each_by_its_reason() {
        let counts = |tally: &Tally| {
            let counts = [
                &tally.dropped,
                &tally.rate_limited,
                &tally.reentrant,
                &tally.allowed,
                &tally.suspended,
                &tally.starved,
                &tally.throttled,
            ];
            counts.map(|count| count.load(Relaxed))
        };
        let tally = Tally {
            dropped: 1.into(),
            rate_limited: 2.into(),
            reentrant: 3.into(),
            allowed: 4.into(),
            suspended: 5.into(),
            starved: 6.into(),
            throttled: 7.into(),
        };
        let sum = Tally::default();
        sum.add(&tally);
        sum.add(&tally);
        assert_eq!(counts(&sum), [2, 4, 6, 8, 10, 12, 14]);
    }
}

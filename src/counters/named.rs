//! Keeps counters by name for the life of the process, because a counter must not go back. Bounds their number.

use std::sync::Arc;

use crate::sync::{Lock, LockGuard};
use crate::watch::{OTHER, UNNAMED};

/// Names with counters of their own: as many as a watchdog has watches by default.
const MAX_NAMES: usize = 1_000;

/// The counters of one name.
pub(super) trait Named {
    fn new(name: Arc<str>) -> Self;
    fn name(&self) -> &str;
}

pub(super) struct NamedCounters<T: 'static> {
    all: Lock<Vec<&'static T>>,
}

impl<T: Named> NamedCounters<T> {
    pub(super) const fn new() -> Self {
        Self {
            all: Lock::new(Vec::new()),
        }
    }

    /// Returns the counters of that name, and leaks new ones if none exist. Names past the limit share [`OTHER`]'s.
    pub(super) fn get_or_leak(&self, name: &str) -> &'static T {
        let name = if name.is_empty() { UNNAMED } else { name };
        let mut all = self.lock();
        let known = |all: &[&'static T], name: &str| {
            let mut known = all.iter().copied();
            known.find(|counts| counts.name() == name)
        };
        let name = match known(&all, name) {
            Some(counts) => return counts,
            None if all.len() < MAX_NAMES => name,
            None => OTHER,
        };
        known(&all, name).unwrap_or_else(|| {
            let counts: &'static T = Box::leak(Box::new(T::new(name.into())));
            all.push(counts);
            counts
        })
    }

    #[cfg(any(feature = "metrics", feature = "page"))]
    pub(super) fn all(&self) -> Vec<&'static T> {
        self.lock().clone()
    }

    fn lock(&self) -> LockGuard<'_, Vec<&'static T>> {
        self.all.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Only(Arc<str>);

    impl Named for Only {
        fn new(name: Arc<str>) -> Self {
            Self(name)
        }

        fn name(&self) -> &str {
            &self.0
        }
    }

    #[test]
    fn get_or_leak_past_the_limit_shares_other() {
        let names = NamedCounters::<Only>::new();
        for number in 0..MAX_NAMES {
            names.get_or_leak(&number.to_string());
        }
        assert_eq!(names.get_or_leak("0").name(), "0");
        let other = names.get_or_leak("one more");
        assert_eq!(other.name(), OTHER);
        assert!(std::ptr::eq(other, names.get_or_leak("")));
    }
}

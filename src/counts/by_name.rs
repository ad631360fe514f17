//! Counts that are kept for ever, because a counter may not go back; so their number is bounded.

use std::sync::Arc;

use crate::sync::{Lock, LockGuard};
use crate::watch::{OTHER, UNNAMED};

/// How many names have counts of their own.
const MOST: usize = 1_000;

/// What is counted under one name.
pub(super) trait Named {
    fn new(name: Arc<str>) -> Self;
    fn name(&self) -> &str;
}

pub(super) struct ByName<T: 'static> {
    all: Lock<Vec<&'static T>>,
}

impl<T: Named> ByName<T> {
    pub(super) const fn new() -> Self {
        Self {
            all: Lock::new(Vec::new()),
        }
    }

    /// The counts of that name. A name past the limit shares those of [`OTHER`].
    pub(super) fn enroll(&self, name: &str) -> &'static T {
        let name = if name.is_empty() { UNNAMED } else { name };
        let mut all = self.lock();
        let known = |all: &[&'static T], name: &str| {
            let mut known = all.iter().copied();
            known.find(|counts| counts.name() == name)
        };
        let name = match known(&all, name) {
            Some(counts) => return counts,
            None if all.len() < MOST => name,
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

    /// Nothing panics while it holds this lock; if it ever did, the list would still be whole.
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
    fn past_the_limit_names_share_one() {
        let names = ByName::<Only>::new();
        for number in 0..MOST {
            names.enroll(&number.to_string());
        }
        assert_eq!(names.enroll("0").name(), "0");
        let other = names.enroll("one more");
        assert_eq!(other.name(), OTHER);
        assert!(std::ptr::eq(other, names.enroll("")));
    }
}

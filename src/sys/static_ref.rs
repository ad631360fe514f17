//! A `&'static T` that one thread publishes and others read.

use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

/// A cell for a reference that lives for ever. What it refers to was there before the process
/// started or is never freed, so no ordering is needed to read through it.
pub(crate) struct StaticRef<T: 'static> {
    target: AtomicPtr<T>,
}

impl<T: Sync> StaticRef<T> {
    pub(crate) const fn empty() -> Self {
        Self {
            target: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    #[inline]
    pub(crate) fn set(&self, target: &'static T) {
        self.target
            .store(std::ptr::from_ref(target).cast_mut(), Relaxed);
    }

    pub(crate) fn get(&self) -> Option<&'static T> {
        // SAFETY: it is null, or a `&'static T` that `set` was given: nothing else is stored, and
        // nothing is ever written through it. `T: Sync`, so any thread may read what it refers to.
        unsafe { self.target.load(Relaxed).as_ref() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_read() {
        static TARGET: u64 = 7;
        let cell = StaticRef::empty();
        assert_eq!(cell.get(), None);
        cell.set(&TARGET);
        assert_eq!(cell.get(), Some(&7));
    }
}

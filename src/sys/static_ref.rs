//! Publishes a `&'static T` from one thread to others.

use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

/// Holds a reference that is never freed.
///
/// The target is a constant of the program, so a reader needs no memory ordering to read through the reference.
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
        // SAFETY: the pointer is null or a `&'static T` from `set`: no other code stores to it, and no code writes
        // through it. `T: Sync`, so any thread may read the target.
        unsafe { self.target.load(Relaxed).as_ref() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn get_after_set_returns_the_reference() {
        static TARGET: u64 = 7;
        let cell = StaticRef::empty();
        assert_eq!(cell.get(), None);
        cell.set(&TARGET);
        assert_eq!(cell.get(), Some(&7));
    }
}

//! A lock that the child of a fork never waits for.
//!
//! A child has one thread. A lock that another thread held at the moment of the fork stays locked there for ever, and
//! what it protects may be half written. So in a child whoever finds a lock taken gets a value of its own instead, as
//! it is at the start, which is dropped with the guard. Whoever finds it free gets what the parent left.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use crate::sys;

/// See the module. A panic under the lock does not poison it.
#[derive(Debug, Default)]
pub(crate) struct Lock<T> {
    mutex: Mutex<T>,
}

/// What was locked, or what stands in for it in the child of a fork.
pub(crate) enum LockGuard<'l, T> {
    Held(MutexGuard<'l, T>),
    StandIn(T),
}

impl<T> Lock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self {
            mutex: Mutex::new(value),
        }
    }
}

impl<T: Default> Lock<T> {
    /// Waits until it is free; not in the child of a fork.
    pub(crate) fn lock(&self) -> LockGuard<'_, T> {
        self.try_lock().unwrap_or_else(|| {
            LockGuard::Held(self.mutex.lock().unwrap_or_else(PoisonError::into_inner))
        })
    }
}

impl<T: Default> Lock<T> {
    /// `None` if another thread has it; never in the child of a fork.
    pub(crate) fn try_lock(&self) -> Option<LockGuard<'_, T>> {
        sys::settle();
        match self.mutex.try_lock() {
            Ok(held) => Some(LockGuard::Held(held)),
            Err(TryLockError::Poisoned(held)) => Some(LockGuard::Held(held.into_inner())),
            Err(TryLockError::WouldBlock) if sys::is_forked() => {
                Some(LockGuard::StandIn(T::default()))
            }
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl<T> LockGuard<'_, T> {
    /// Whether nothing that is changed in here lasts.
    pub(crate) fn is_stand_in(&self) -> bool {
        matches!(self, LockGuard::StandIn(_))
    }
}

impl<T> Deref for LockGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            LockGuard::Held(held) => held,
            LockGuard::StandIn(value) => value,
        }
    }
}

impl<T> DerefMut for LockGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        match self {
            LockGuard::Held(held) => held,
            LockGuard::StandIn(value) => value,
        }
    }
}

#[cfg(all(test, not(shotclock_loom)))]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn lock_when_another_thread_holds_it_waits_in_the_parent() {
        let lock = Lock::new(1);
        let (locked, is_locked) = mpsc::channel();
        std::thread::scope(|scope| {
            let held = lock.lock();
            scope.spawn(|| {
                let held = lock.lock();
                locked.send((*held, held.is_stand_in())).unwrap();
            });
            assert!(is_locked.try_recv().is_err());
            let mut held = held;
            *held = 2;
            drop(held);
            assert_eq!(is_locked.recv().unwrap(), (2, false));
        });
    }

    #[test]
    fn lock_after_a_panic_under_it_gives_the_value() {
        let lock = Lock::new(7);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _held = lock.lock();
            panic!("on purpose");
        }));
        assert!(caught.is_err());
        assert_eq!(*lock.lock(), 7);
    }
}

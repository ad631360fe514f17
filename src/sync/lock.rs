//! A lock that never blocks the child of a fork.
//!
//! A child has one thread. A lock that another thread held at the fork stays locked in the child, and the locked value may
//! be half written. So the child gets a default value instead, which the guard drops. If the lock was free at the fork,
//! the child gets the value that the parent left.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard};

use super::IgnorePoison as _;
use super::fork;

/// A mutex that gives the child of a fork a default value in place of a value that another thread had locked.
///
/// A panic under the lock does not poison it.
#[derive(Debug, Default)]
pub(crate) struct Lock<T> {
    mutex: Mutex<T>,
}

/// The locked value, or the default value in the child of a fork.
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
    /// Waits until the lock is free. The child of a fork does not wait.
    pub(crate) fn lock(&self) -> LockGuard<'_, T> {
        self.try_lock()
            .unwrap_or_else(|| LockGuard::Held(self.mutex.lock().ignore_poison()))
    }

    /// Returns `None` if another thread holds the lock. In the child of a fork it returns a guard always.
    pub(crate) fn try_lock(&self) -> Option<LockGuard<'_, T>> {
        fork::note_home_process();
        match self.mutex.try_lock().ignore_poison() {
            Some(held) => Some(LockGuard::Held(held)),
            None if fork::is_forked() => Some(LockGuard::StandIn(T::default())),
            None => None,
        }
    }
}

impl<T> LockGuard<'_, T> {
    /// Returns whether this is the default value, so that changes to it are lost.
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

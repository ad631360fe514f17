//! The locks of a model. No model forks, so no lock stands in for another one.
//!
//! A fault can skip a lock, or one look at the value through its guard: see [`Fault::Skipped`].

use std::ops::{Deref, DerefMut};
use std::sync::{LockResult, PoisonError};
use std::time::Duration;

use loom::sync;

use super::fault::{Fault, fault_here};

pub(crate) type ModelledGuard<'l, T> = MutexGuard<'l, T>;

/// As std's mutex.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T> {
    mutex: sync::Mutex<T>,
}

/// As [`Lock`](crate::sync::Lock).
#[derive(Debug, Default)]
pub(crate) struct ModelledLock<T> {
    mutex: Mutex<T>,
}

pub(crate) struct MutexGuard<'l, T> {
    /// `None` where a fault skipped the lock.
    held: Option<sync::MutexGuard<'l, T>>,
    /// What a skipped lock or look gives access to.
    skipped: T,
}

/// As std's, for the mutex of this module.
pub(crate) struct Condvar {
    condvar: sync::Condvar,
}

#[track_caller]
fn is_skipped(operation: &str) -> bool {
    match fault_here() {
        None => false,
        Some(Fault::Skipped) => true,
        Some(fault) => fault.does_not_fit(operation),
    }
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            mutex: sync::Mutex::new(value),
        }
    }
}

impl<T: Default> Mutex<T> {
    #[track_caller]
    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let lock = || self.mutex.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(MutexGuard {
            held: (!is_skipped("a lock")).then(lock),
            skipped: T::default(),
        })
    }
}

impl<T> ModelledLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            mutex: Mutex::new(value),
        }
    }
}

impl<T: Default> ModelledLock<T> {
    #[track_caller]
    pub(crate) fn lock(&self) -> ModelledGuard<'_, T> {
        let guard = self.mutex.lock();
        guard.unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> MutexGuard<'_, T> {
    pub(crate) fn is_stand_in(&self) -> bool {
        false
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[track_caller]
    fn deref(&self) -> &T {
        let is_skipped = is_skipped("a look at a locked value");
        let held = self.held.as_deref().filter(|_| !is_skipped);
        held.unwrap_or(&self.skipped)
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    #[track_caller]
    fn deref_mut(&mut self) -> &mut T {
        let is_skipped = is_skipped("a change of a locked value");
        let held = self.held.as_deref_mut().filter(|_| !is_skipped);
        held.unwrap_or(&mut self.skipped)
    }
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Self {
            condvar: sync::Condvar::new(),
        }
    }

    pub(crate) fn notify_all(&self) {
        self.condvar.notify_all();
    }

    pub(crate) fn wait_timeout<'l, T>(
        &self,
        mut guard: MutexGuard<'l, T>,
        timeout: Duration,
    ) -> LockResult<(MutexGuard<'l, T>, sync::WaitTimeoutResult)> {
        let held = guard
            .held
            .take()
            .expect("no thread waits under a skipped lock");
        let waited = self.condvar.wait_timeout(held, timeout);
        let (held, result) = waited.unwrap_or_else(PoisonError::into_inner);
        guard.held = Some(held);
        Ok((guard, result))
    }
}

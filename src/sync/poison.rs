//! Locks that a panic does not make useless.
//!
//! std poisons a lock when a thread panics while it holds the lock. This crate keeps each locked value valid at every
//! step, so a value after a panic is as good as before it.

use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};

/// Takes the guard out of the result of a lock, a condition variable or `into_inner`, poisoned or not.
pub(crate) trait IgnorePoison {
    type Value;

    fn ignore_poison(self) -> Self::Value;
}

impl<G> IgnorePoison for LockResult<G> {
    type Value = G;

    #[inline]
    fn ignore_poison(self) -> G {
        self.unwrap_or_else(PoisonError::into_inner)
    }
}

impl<G> IgnorePoison for TryLockResult<G> {
    /// `None` if another thread holds the lock.
    type Value = Option<G>;

    #[inline]
    fn ignore_poison(self) -> Option<G> {
        match self {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

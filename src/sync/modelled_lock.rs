//! [`Lock`](super::Lock) in a loom model. No model forks, so no guard holds a default value.

use std::ops::{Deref, DerefMut};

use loom::sync::{Mutex, MutexGuard};

use super::IgnorePoison as _;

#[derive(Debug, Default)]
pub(crate) struct ModelledLock<T> {
    mutex: Mutex<T>,
}

pub(crate) struct ModelledGuard<'l, T> {
    held: MutexGuard<'l, T>,
}

impl<T> ModelledLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            mutex: Mutex::new(value),
        }
    }

    pub(crate) fn lock(&self) -> ModelledGuard<'_, T> {
        ModelledGuard {
            held: self.mutex.lock().ignore_poison(),
        }
    }
}

impl<T> ModelledGuard<'_, T> {
    pub(crate) fn is_stand_in(&self) -> bool {
        false
    }
}

impl<T> Deref for ModelledGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.held
    }
}

impl<T> DerefMut for ModelledGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.held
    }
}

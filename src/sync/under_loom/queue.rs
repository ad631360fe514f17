//! crossbeam's `ArrayQueue` in a loom model. crossbeam uses std's atomics, which loom does not see, so the models cover the
//! code around the queue.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;

use loom::sync::atomic::AtomicUsize;
use loom::sync::{Mutex, MutexGuard};

use super::fault::{Fault, fault_here};
use crate::sync::IgnorePoison as _;

/// A bounded queue that promises no more than crossbeam's. A thread that finds it empty may have a stale view, and sees
/// no other writes of a thread that pushes at the same time.
pub(crate) struct ArrayQueue<T> {
    capacity: usize,
    /// The number of items, for readers without the lock.
    len: AtomicUsize,
    items: Mutex<VecDeque<T>>,
}

impl<T> ArrayQueue<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            len: AtomicUsize::new(0),
            items: Mutex::new(VecDeque::new()),
        }
    }

    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        let mut items = self.lock();
        if items.len() == self.capacity {
            return Err(item);
        }
        items.push_back(item);
        self.len.store(items.len(), Relaxed);
        Ok(())
    }

    pub(crate) fn pop(&self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let mut items = self.lock();
        let item = items.pop_front();
        self.len.store(items.len(), Relaxed);
        item
    }

    #[track_caller]
    pub(crate) fn is_empty(&self) -> bool {
        match fault_here() {
            None => self.len.load(Relaxed) == 0,
            Some(Fault::Skipped) => true,
            Some(fault) => fault.does_not_fit("a look at a queue"),
        }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.items.lock().ignore_poison()
    }
}

//! Floor 0, the lowest module: atomics, locks and threads, from std or, under `--cfg shotclock_loom`, from loom.
//!
//! It imports no other module of the crate, so that `sys` can use it.
//!
//! A comment `model: NAME` at the end of a line gives a name to the operation on that line. Under loom a model weakens
//! the operation by that name, and shows that it then fails (`src/models`). In every other build the comment is all
//! there is: the code that ships has no trace of the models.

use std::sync::atomic::Ordering::Relaxed;

pub(crate) mod fork;
mod lock;
mod poison;
#[cfg(shotclock_loom)]
mod under_loom;

#[cfg(not(shotclock_loom))]
pub(crate) use std::{
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, fence},
    },
    thread, thread_local,
};

#[cfg(not(shotclock_loom))]
pub(crate) use crossbeam_queue::ArrayQueue;
pub(crate) use lock::{Lock, LockGuard};
#[cfg(not(shotclock_loom))]
pub(crate) use lock::{Lock as ModelledLock, LockGuard as ModelledGuard};
pub(crate) use poison::IgnorePoison;
#[cfg(shotclock_loom)]
pub(crate) use under_loom::*;

/// Adds without a read-modify-write. The sum is exact if one thread writes the cell.
#[inline]
pub(crate) fn add_single_writer(cell: &AtomicU64, value: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(value), Relaxed);
}

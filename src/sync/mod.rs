//! Floor 0, the lowest module: atomics, locks and threads, from std or, under `--cfg shotclock_loom`, from loom.
//!
//! It imports no other module of the crate, so that `sys` can use it.

use std::sync::atomic::Ordering::Relaxed;

mod broken;
pub(crate) mod fork;
mod lock;
#[cfg(all(test, shotclock_loom))]
pub(crate) mod model;
#[cfg(shotclock_loom)]
mod modelled_lock;
mod poison;
#[cfg(shotclock_loom)]
mod queue;
#[cfg(shotclock_loom)]
pub(crate) mod thread;

#[cfg(not(shotclock_loom))]
pub(crate) use std::{
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64},
    },
    thread, thread_local,
};

#[cfg(shotclock_loom)]
pub(crate) use loom::{
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64},
    },
    thread_local,
};

pub(crate) use broken::{broken, exchange, fence, unless_broken};
#[cfg(not(shotclock_loom))]
pub(crate) use crossbeam_queue::ArrayQueue;
pub(crate) use lock::{Lock, LockGuard};
#[cfg(not(shotclock_loom))]
pub(crate) use lock::{Lock as ModelledLock, LockGuard as ModelledGuard};
#[cfg(shotclock_loom)]
pub(crate) use modelled_lock::{ModelledGuard, ModelledLock};
pub(crate) use poison::IgnorePoison;
#[cfg(shotclock_loom)]
pub(crate) use queue::ArrayQueue;

/// Adds without a read-modify-write. The sum is exact if one thread writes the cell.
#[inline]
pub(crate) fn add_single_writer(cell: &AtomicU64, value: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(value), Relaxed);
}

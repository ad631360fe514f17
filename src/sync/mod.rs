//! Floor 0: the atomics, locks and threads of what is modelled, from std or, under `--cfg shotclock_loom`,
//! from loom.
//!
//! A fence on one side only is modelled as one on both: what [`heavy_fence`] does, in the kernel, is to
//! run a full fence on every other thread of the process, wherever that thread is.

use std::sync::atomic::Ordering::Relaxed;

mod broken;
mod lock;
#[cfg(all(test, shotclock_loom))]
pub(crate) mod model;
#[cfg(shotclock_loom)]
mod modelled_lock;
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
#[cfg(shotclock_loom)]
pub(crate) use queue::ArrayQueue;

/// Adds without a read-modify-write, which is exact where there is one writer.
#[inline]
pub(crate) fn add_single_writer(cell: &AtomicU64, value: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(value), Relaxed);
}

/// The cheap half of a fence between a store and a load: it holds the compiler alone, and is worth
/// something only against a [`heavy_fence`].
#[inline]
pub(crate) fn light_fence() {
    #[cfg(not(shotclock_loom))]
    std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
    #[cfg(shotclock_loom)]
    fence(std::sync::atomic::Ordering::SeqCst, "rouse-fence");
}

/// The dear half: a full fence on this thread and on every other one. False where the operating
/// system does not give it.
pub(crate) fn heavy_fence() -> bool {
    #[cfg(not(shotclock_loom))]
    return crate::sys::fence_every_thread();
    #[cfg(shotclock_loom)]
    {
        fence(std::sync::atomic::Ordering::SeqCst, "lie-down-fence");
        true
    }
}

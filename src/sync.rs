//! Floor 0: the atomics of what is modelled, from std or, under `--cfg shotclock_loom`, from loom.
//!
//! A fence on one side only is modelled as one on both: what [`heavy_fence`] does, in the kernel, is to
//! run a full fence on every other thread of the process, wherever that thread is.

#[cfg(not(shotclock_loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, fence},
};

#[cfg(shotclock_loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, fence},
};

/// The cheap half of a fence between a store and a load: it holds the compiler alone, and is worth
/// something only against a [`heavy_fence`].
#[inline]
pub(crate) fn light_fence() {
    #[cfg(not(shotclock_loom))]
    std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
    #[cfg(shotclock_loom)]
    fence(std::sync::atomic::Ordering::SeqCst);
}

/// The dear half: a full fence on this thread and on every other one. False where the operating
/// system does not give it.
pub(crate) fn heavy_fence() -> bool {
    #[cfg(not(shotclock_loom))]
    return crate::sys::fence_every_thread();
    #[cfg(shotclock_loom)]
    {
        fence(std::sync::atomic::Ordering::SeqCst);
        true
    }
}

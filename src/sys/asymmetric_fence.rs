//! A fence between a store and a load of two threads, where one thread pays for both.
//!
//! The thread on the hot path runs [`light_fence`], the other one [`heavy_fence`]. The kernel runs the heavy fence on
//! every thread of the process, at whatever instruction each thread is. So a loom model runs a full fence on both sides.

#[cfg(shotclock_loom)]
use std::sync::atomic::Ordering::SeqCst;

#[cfg(shotclock_loom)]
use crate::sync::fence;

/// Keeps the compiler from moving a load before a store. It orders nothing without a [`heavy_fence`] of the other thread.
#[inline]
pub(crate) fn light_fence() {
    #[cfg(not(shotclock_loom))]
    std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
    #[cfg(shotclock_loom)]
    fence(SeqCst); // model: light-fence
}

/// Runs a full fence on every thread of the process. Returns false if the operating system does not provide it.
pub(crate) fn heavy_fence() -> bool {
    #[cfg(not(shotclock_loom))]
    return super::fence_every_thread();
    #[cfg(shotclock_loom)]
    {
        fence(SeqCst); // model: heavy-fence
        true
    }
}

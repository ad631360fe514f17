//! Parks the sentinel while nothing is in flight, and lets a poll wake it.
//!
//! A poll stores its frame and then loads the flag. The sentinel stores the flag and then loads the slots. One of the
//! two must see the other, which takes a full fence between store and load on both sides. The sentinel makes both:
//! its [`heavy_fence`] runs a fence on every thread. The poll pays only for a load of an unwritten cache line and a
//! branch.

use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;

use crate::sync::AtomicBool;
use crate::sync::thread::{self, Thread};
use crate::sys::{heavy_fence, light_fence};

/// The parking state of the sentinel.
#[repr(align(128))]
pub(crate) struct SentinelParker {
    parked: AtomicBool,
    thread: OnceLock<Thread>,
}

/// The parker of the process's sentinel.
#[cfg(not(shotclock_loom))]
pub(crate) static SENTINEL_PARKER: SentinelParker = SentinelParker {
    parked: AtomicBool::new(false),
    thread: OnceLock::new(),
};

#[cfg(shotclock_loom)]
loom::lazy_static! {
    pub(crate) static ref SENTINEL_PARKER: SentinelParker = SentinelParker::new();
}

impl SentinelParker {
    #[cfg(any(test, shotclock_loom))]
    pub(crate) fn new() -> Self {
        Self {
            parked: AtomicBool::new(false),
            thread: OnceLock::new(),
        }
    }

    /// Wakes the sentinel if it is parked. Each poll calls this after it has published its begin.
    #[inline]
    pub(crate) fn notify(&self) {
        light_fence();
        if self.parked.load(Relaxed) {
            self.wake();
        }
    }

    /// Of several threads at once, one makes the system call.
    #[cold]
    #[inline(never)]
    fn wake(&self) {
        if self.parked.swap(false, Relaxed) {
            self.unpark();
        }
    }

    /// Makes the calling thread the one that parks.
    pub(crate) fn register(&self) {
        self.thread.get_or_init(thread::current);
    }

    /// Ends a sleep of the sentinel, because something has changed that the next scan must see.
    pub(crate) fn unpark(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Announces that the calling thread will park. It must then scan once more, and may [`park`](Self::park) if nothing
    /// is in flight.
    ///
    /// Returns false if the system has no such fence. Then the thread must not park without a time limit.
    pub(crate) fn prepare_park(&self) -> bool {
        self.parked.store(true, Relaxed);
        let fenced = heavy_fence();
        if !fenced {
            self.cancel_park();
        }
        fenced
    }

    /// Takes the announcement back.
    pub(crate) fn cancel_park(&self) {
        self.parked.store(false, Relaxed);
    }

    /// Returns whether the sentinel has announced to park, and no poll has woken it since.
    pub(crate) fn is_parked(&self) -> bool {
        self.parked.load(Relaxed)
    }

    /// Waits until a poll has woken the thread since its announcement.
    pub(crate) fn park(&self) {
        while self.parked.load(Relaxed) {
            thread::park();
        }
    }
}

#[cfg(all(test, not(shotclock_loom)))]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;
    use crate::tests::MAX_WAIT;

    #[test]
    fn park_after_prepare_lasts_until_notify() {
        let parker = Arc::new(SentinelParker::new());
        let (send, received) = mpsc::channel();
        let sleeper = Arc::clone(&parker);
        thread::spawn(move || {
            sleeper.register();
            send.send(sleeper.prepare_park()).unwrap();
            sleeper.park();
            send.send(true).unwrap();
        });
        let may_sleep = received.recv_timeout(MAX_WAIT).unwrap();
        assert_eq!(may_sleep, heavy_fence());
        if may_sleep {
            assert!(parker.parked.load(Relaxed));
            assert!(received.try_recv().is_err());
            parker.notify();
        }
        assert!(!parker.parked.load(Relaxed));
        received.recv_timeout(MAX_WAIT).unwrap();
    }

    #[test]
    fn park_after_cancel_returns_at_once() {
        let parker = Arc::new(SentinelParker::new());
        parker.prepare_park();
        parker.cancel_park();
        assert!(!parker.parked.load(Relaxed));
        parker.park();
    }

    #[test]
    fn unpark_ends_a_sleep() {
        let parker = Arc::new(SentinelParker::new());
        let (send, received) = mpsc::channel();
        let sleeper = Arc::clone(&parker);
        thread::spawn(move || {
            sleeper.register();
            send.send(()).unwrap();
            thread::park();
            send.send(()).unwrap();
        });
        received.recv_timeout(MAX_WAIT).unwrap();
        parker.unpark();
        received.recv_timeout(MAX_WAIT).unwrap();
    }
}

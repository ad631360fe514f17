//! The sleep of the one who looks at the slots, and how a poll ends it.
//!
//! A poll stores its frame and then loads the flag; the sentinel stores the flag and then loads the
//! slots. One of the two must see the other, which takes a full fence between store and load on both
//! sides. The sentinel makes both: its [`heavy_fence`] runs one on every thread. What is left for the
//! poll is a load of a cache line that nobody writes, and a branch.

use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;

use crate::sync::thread::{self, Thread};
use crate::sync::{AtomicBool, broken, heavy_fence, light_fence};

/// Whether the sentinel sleeps until it is roused.
#[repr(align(128))]
pub(crate) struct SentinelParker {
    parked: AtomicBool,
    thread: OnceLock<Thread>,
}

/// The sleep of the process's one sentinel.
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

    /// Called by every poll that began, after it was published.
    #[inline]
    pub(crate) fn notify(&self) {
        light_fence();
        if self.parked.load(Relaxed) {
            self.wake();
        }
    }

    /// One of those that come at once makes the system call; the others go on.
    #[cold]
    #[inline(never)]
    fn wake(&self) {
        if broken("wake-order") {
            self.unpark();
            self.parked.store(false, Relaxed);
        }
        if self.parked.swap(false, Relaxed) {
            self.unpark();
        }
    }

    /// Says that the calling thread is the one that sleeps.
    pub(crate) fn register(&self) {
        self.thread.get_or_init(thread::current);
    }

    /// Ends a nap of the sentinel's, if it takes one: something has changed that it must know.
    pub(crate) fn unpark(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Announces that the calling thread will sleep. It may, if nothing is in flight when it looks
    /// once more; then it [`park`](Self::park)s. False where there is no such fence: then it must not
    /// sleep without a time limit.
    pub(crate) fn prepare_park(&self) -> bool {
        self.parked.store(true, Relaxed);
        let fenced = heavy_fence();
        if !fenced {
            self.cancel_park();
        }
        fenced
    }

    /// Ends the sleep from the sentinel's own side.
    pub(crate) fn cancel_park(&self) {
        self.parked.store(false, Relaxed);
    }

    /// Whether the sentinel sleeps, and has not been roused since it lay down.
    pub(crate) fn is_parked(&self) -> bool {
        self.parked.load(Relaxed)
    }

    /// Waits until somebody has roused it since it lay down.
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
    use crate::tests::PATIENCE;

    #[test]
    fn who_lies_down_sleeps_until_somebody_rouses_it() {
        let parker = Arc::new(SentinelParker::new());
        let (tell, told) = mpsc::channel();
        let sleeper = Arc::clone(&parker);
        thread::spawn(move || {
            sleeper.register();
            tell.send(sleeper.prepare_park()).unwrap();
            sleeper.park();
            tell.send(true).unwrap();
        });
        let may_sleep = told.recv_timeout(PATIENCE).unwrap();
        assert_eq!(may_sleep, heavy_fence());
        if may_sleep {
            assert!(parker.parked.load(Relaxed));
            assert!(told.try_recv().is_err());
            parker.notify();
        }
        assert!(!parker.parked.load(Relaxed));
        told.recv_timeout(PATIENCE).unwrap();
    }

    #[test]
    fn who_gets_up_by_itself_does_not_sleep() {
        let parker = Arc::new(SentinelParker::new());
        parker.prepare_park();
        parker.cancel_park();
        assert!(!parker.parked.load(Relaxed));
        parker.park();
    }

    #[test]
    fn a_nap_ends_when_it_is_prodded() {
        let parker = Arc::new(SentinelParker::new());
        let (tell, told) = mpsc::channel();
        let sleeper = Arc::clone(&parker);
        thread::spawn(move || {
            sleeper.register();
            tell.send(()).unwrap();
            thread::park();
            tell.send(()).unwrap();
        });
        told.recv_timeout(PATIENCE).unwrap();
        parker.unpark();
        told.recv_timeout(PATIENCE).unwrap();
    }
}

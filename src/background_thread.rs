//! Floor 0: starts the crate's own threads.
//!
//! These threads block the program's signals. A program may block SIGTERM after it built a watchdog, to read the signal
//! from a `signalfd`. It must not lose the signal to a thread of the crate.

use crate::error::Error;
use crate::sync::Lock;
use crate::sync::thread::{self, Thread};
use crate::sys::{self, Unblocked};

/// A thread that the process starts at most once, and that runs as long as the process.
///
/// # In a forked child
///
/// The child has a copy of this state, and not the thread. If the parent had started the thread, or was starting it at
/// the fork, then the child's [`start`](Self::start) and [`wake`](Self::wake) do nothing. Otherwise the child starts a
/// thread of its own.
pub(crate) struct BackgroundThread {
    name: &'static str,
    /// `None` until the thread runs. [`start`](Self::start) holds the lock, so of two callers one starts the thread.
    thread: Lock<Option<Thread>>,
}

impl BackgroundThread {
    /// Names the thread. Linux shows the first 15 bytes.
    pub(crate) const fn new(name: &'static str) -> Self {
        Self {
            name,
            thread: Lock::new(None),
        }
    }

    /// Starts the thread unless it runs.
    ///
    /// # Errors
    ///
    /// If the operating system refuses a thread. The next call tries again.
    pub(crate) fn start(&self, run: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let mut thread = self.thread.lock();
        if thread.is_none() && !thread.is_stand_in() {
            *thread = Some(spawn(self.name, run)?);
        }
        Ok(())
    }

    /// Ends a `park` of the thread, if the thread runs.
    pub(crate) fn wake(&self) {
        if let Some(thread) = &*self.thread.lock() {
            thread.unpark();
        }
    }
}

/// Starts a thread that needs no signal and ends when `run` returns.
///
/// # Errors
///
/// If the operating system refuses a thread.
pub(crate) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<Thread, Error> {
    spawn_with_signals(name, Unblocked::Faults, run)
}

/// Starts a thread as [`spawn`] does. The thread accepts the given signals.
pub(crate) fn spawn_with_signals(
    name: &str,
    unblocked: Unblocked,
    run: impl FnOnce() + Send + 'static,
) -> Result<Thread, Error> {
    start(name, unblocked, Box::new(run))
}

/// Starts a thread. Not generic, because each closure would have its own copy of std's code that starts a thread.
fn start(name: &str, unblocked: Unblocked, run: Box<dyn FnOnce() + Send>) -> Result<Thread, Error> {
    let builder = thread::Builder::new().name(name.to_owned());
    let spawned = sys::with_signals_blocked(unblocked, || builder.spawn(run));
    let spawned = spawned.map_err(|error| Error::thread(name, error))?;
    Ok(spawned.thread().clone())
}

#[cfg(all(test, not(shotclock_loom)))]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn start_while_the_thread_runs_starts_no_other() {
        static THREAD: BackgroundThread = BackgroundThread::new("test");
        let (started, starts) = mpsc::channel();
        for _ in 0..3 {
            let started = started.clone();
            let run = move || started.send(thread::current().id()).unwrap();
            THREAD.start(run).unwrap();
        }
        drop(started);
        assert_eq!(starts.iter().count(), 1);
    }

    #[test]
    fn wake_of_a_parked_thread_ends_the_park() {
        static THREAD: BackgroundThread = BackgroundThread::new("test");
        THREAD.wake();
        let (woken, is_woken) = mpsc::channel();
        THREAD
            .start(move || {
                thread::park();
                woken.send(()).unwrap();
            })
            .unwrap();
        THREAD.wake();
        is_woken.recv().unwrap();
    }
}

//! Threads in a model, as far as modelled code uses them.
//!
//! Spawning is loom's. Parking is not: loom's own wakes a thread that waits for a lock, and forgets the
//! wake-up of one that is about to. So a token is made of what loom does well, and promises what std's does:
//! it is kept until it is used, and who parks sees what was done before it was given.

use std::io;
use std::sync::Arc;

use loom::sync::{Condvar, Mutex};
pub(crate) use loom::thread::yield_now;

/// The token of one thread.
#[derive(Clone, Debug)]
pub(crate) struct Thread {
    token: Arc<(Mutex<bool>, Condvar)>,
}

loom::thread_local! {
    static CURRENT: std::cell::RefCell<Thread> = std::cell::RefCell::new(Thread::new());
}

impl Thread {
    fn new() -> Self {
        Self {
            token: Arc::new((Mutex::new(false), Condvar::new())),
        }
    }

    pub(crate) fn unpark(&self) {
        let (token, given) = &*self.token;
        let mut token = token
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        *token = true;
        given.notify_one();
    }
}

pub(crate) fn current() -> Thread {
    CURRENT.with(|current| current.borrow().clone())
}

pub(crate) fn park() {
    let current = current();
    let (token, given) = &*current.token;
    let mut token = token
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    while !*token {
        token = given
            .wait(token)
            .unwrap_or_else(|poisoned| poisoned.into_inner());
    }
    *token = false;
}

/// As std's `park_timeout`, with a time limit that is over at once.
#[cfg(test)]
pub(crate) fn use_wake_up() {
    let current = current();
    *current.token.0.lock().unwrap() = false;
}

/// As std's, for a thread that nobody joins.
pub(crate) struct Builder;

/// What std calls a `JoinHandle`.
pub(crate) struct Spawned {
    thread: Thread,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self
    }

    pub(crate) fn name(self, _: String) -> Self {
        self
    }

    pub(crate) fn spawn(self, run: impl FnOnce() + 'static) -> io::Result<Spawned> {
        let thread = Thread::new();
        let its_own = thread.clone();
        drop(loom::thread::spawn(move || {
            CURRENT.with(|current| current.replace(its_own));
            run();
        }));
        Ok(Spawned { thread })
    }
}

impl Spawned {
    pub(crate) fn thread(&self) -> &Thread {
        &self.thread
    }
}

//! std's threads in a loom model, as far as the modelled code uses them.
//!
//! Spawning is loom's, and parking is not. loom's `unpark` wakes a thread that waits for a lock, and is lost if the thread
//! is about to wait. So this token consists of a mutex and a condition variable. It promises what std's promises: it
//! stays until `park` uses it, and the parked thread sees all writes before `unpark`.

use std::io;
use std::sync::Arc;

use loom::sync::{Condvar, Mutex};
pub(crate) use loom::thread::yield_now;

use super::fault::{Fault, fault_here};
use crate::sync::IgnorePoison as _;

/// The handle of one thread, with its token.
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

    #[track_caller]
    pub(crate) fn unpark(&self) {
        match fault_here() {
            None => self.give_token(),
            Some(Fault::Skipped) => {}
            Some(fault) => fault.does_not_fit("an unpark"),
        }
    }

    fn give_token(&self) {
        let (token, given) = &*self.token;
        let mut token = token.lock().ignore_poison();
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
    let mut token = token.lock().ignore_poison();
    while !*token {
        token = given.wait(token).ignore_poison();
    }
    *token = false;
}

/// `park_timeout` whose time limit has passed.
#[cfg(test)]
pub(crate) fn use_wake_up() {
    let current = current();
    *current.token.0.lock().unwrap() = false;
}

/// std's `Builder`, for a thread without a join.
pub(crate) struct Builder;

/// std's `JoinHandle`.
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

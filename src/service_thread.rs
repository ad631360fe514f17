//! Floor 0: the threads that the crate starts for itself.
//!
//! Each takes no signal of the program's. A program that blocks SIGTERM after it built a watchdog, to read it
//! from a `signalfd`, must not lose it to a thread that it does not know of.

use crate::error::Error;
use crate::sync::thread::{self, Thread};
use crate::sys::{self, Unblocked};

/// Starts a thread of the crate's own that needs no signal. It runs until `run` returns.
pub(crate) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<Thread, Error> {
    spawn_with(name, Unblocked::Faults, run)
}

/// As [`spawn`], and the thread takes the named signals.
pub(crate) fn spawn_with(
    name: &str,
    unblocked: Unblocked,
    run: impl FnOnce() + Send + 'static,
) -> Result<Thread, Error> {
    start(name, unblocked, Box::new(run))
}

/// Not generic, because each closure would have its own copy of all that std does to start a thread.
fn start(name: &str, unblocked: Unblocked, run: Box<dyn FnOnce() + Send>) -> Result<Thread, Error> {
    let builder = thread::Builder::new().name(name.to_owned());
    let spawned = sys::with_signals_blocked(unblocked, || builder.spawn(run));
    let spawned = spawned.map_err(|error| Error::thread(name, error))?;
    Ok(spawned.thread().clone())
}

//! The atomics, locks, queue and threads of a model: loom's, with a place for one [`Fault`](fault::Fault).
//!
//! Every operation here knows the line of the code that calls it (`#[track_caller]`). So a model can weaken one
//! operation of the production code by its line, and that code contains nothing but the operation.

mod atomic;
pub(crate) mod fault;
mod lock;
mod queue;
pub(crate) mod thread;

pub(crate) use atomic::{AtomicBool, AtomicU64, fence};
pub(crate) use lock::{Condvar, ModelledGuard, ModelledLock, Mutex, MutexGuard};
pub(crate) use loom::thread_local;
pub(crate) use queue::ArrayQueue;

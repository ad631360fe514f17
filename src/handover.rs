//! Floor 5: polls that are expected to overrun, and the worker's other tasks, which are handed over
//! to another thread before.
//!
//! `tokio::task::block_in_place` does the handing over. It works on the workers of a multi-thread
//! runtime only; elsewhere, and where it would not pay, a poll is a plain one.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use tokio::runtime::{Handle, RuntimeFlavor, worker_index};
use tokio::task::block_in_place;

use crate::watch::Watch;

/// Nanoseconds that a hand-over costs the thread that makes it: this is assumed, then measured.
static COST: AtomicU64 = AtomicU64::new(20_000);

/// Another thread wakes up and takes over, which costs about as much again.
const WORTH: u64 = 2;

/// How much a measurement weighs, and how long a hand-over can take, ten times what it does: more is
/// not its doing, but the host's.
const WEIGHT: u64 = 8;
const LONGEST: u64 = 100_000;

thread_local! {
    /// Whether a contained poll is on this thread: it has nothing left to hand over.
    static IS_CONTAINED: Cell<bool> = const { Cell::new(false) };
    /// Whether tokio refused on this thread: it runs one runtime and has entered another, which is
    /// not to be seen from outside. The panic hook has then printed a message, once.
    static IS_REFUSED: Cell<bool> = const { Cell::new(false) };
}

/// Whether the next poll is expected to overrun by more than it costs to hand over: the comparison
/// that a contained watch pays.
#[inline]
pub(crate) fn pays(watch: &Watch) -> bool {
    watch
        .expected_overrun()
        .is_some_and(|expected| expected > COST.load(Relaxed) * WORTH)
}

/// Why polls cannot be contained where this is called.
pub(crate) fn obstacle() -> Option<&'static str> {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => None,
        Ok(_) => Some("the runtime has one thread, and nobody to hand its tasks to"),
        Err(_) => Some("there is no tokio runtime here"),
    }
}

/// Room for one more contained poll, until it is dropped.
pub(crate) struct Place<'w> {
    taken: &'w AtomicUsize,
}

impl<'w> Place<'w> {
    /// If there is room, and a worker's tasks to hand over.
    pub(crate) fn take(watch: &'w Watch) -> Option<Self> {
        let (taken, limit) = watch.home().contained();
        let is_worker = worker_index().is_some() && obstacle().is_none();
        if !is_worker || IS_REFUSED.get() || IS_CONTAINED.get() {
            return None;
        }
        if taken.fetch_add(1, Relaxed) >= limit {
            taken.fetch_sub(1, Relaxed);
            return None;
        }
        IS_CONTAINED.set(true);
        Some(Self { taken })
    }

    /// Polls within `block_in_place`.
    ///
    /// Unlike a plain one, a contained poll goes on while its runtime shuts down, and what it does
    /// with the runtime then may panic. Its task is about to be dropped: that panic is not the code's,
    /// and is answered with `Pending`.
    pub(crate) fn poll<T>(self, watch: &Watch, mut poll: impl FnMut() -> Poll<T>) -> Poll<T> {
        let clock = watch.clock();
        let asked = clock.raw();
        let times = Cell::new(None);
        let timed = || {
            let begun = clock.raw();
            watch.core().overruns.count_contained();
            times.set(Some((begun, begun)));
            let polled = poll();
            times.set(Some((begun, clock.raw())));
            polled
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| block_in_place(timed)));
        drop(self);
        match (outcome, times.get()) {
            (Ok(polled), Some((begun, ended))) => {
                let before = clock.nanos_between(asked, begun);
                learn(before + clock.nanos_between(ended, clock.raw()));
                polled
            }
            (Ok(polled), None) => polled,
            (Err(_), None) => {
                // It was refused, and nothing has been polled.
                IS_REFUSED.set(true);
                poll()
            }
            (Err(payload), Some(_)) if is_of_a_shutdown(&*payload) => Poll::Pending,
            (Err(payload), Some(_)) => resume_unwind(payload),
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        IS_CONTAINED.set(false);
        self.taken.fetch_sub(1, Relaxed);
    }
}

fn learn(cost: u64) {
    let known = COST.load(Relaxed);
    let learnt = known - known / WEIGHT + cost.min(LONGEST) / WEIGHT;
    COST.store(learnt, Relaxed);
}

/// Whether it is the panic of a runtime that is being shut down, and this is one.
fn is_of_a_shutdown(payload: &(dyn Any + Send)) -> bool {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.is_some_and(|text| text.contains("being shutdown")) && is_shut_down()
}

/// A runtime that is being shut down cancels what is spawned at once.
fn is_shut_down() -> bool {
    let Ok(runtime) = Handle::try_current() else {
        return false;
    };
    let probe = pin!(runtime.spawn(std::future::pending::<()>()));
    let handle = probe.abort_handle();
    let polled = probe.poll(&mut Context::from_waker(Waker::noop()));
    handle.abort();
    matches!(polled, Poll::Ready(Err(error)) if error.is_cancelled())
}

//! Floor 5: contains polls that are expected to exceed their budget.
//!
//! Before such a poll, `tokio::task::block_in_place` hands the worker's other tasks over to another thread. It works
//! only on workers of a multi-thread runtime. Elsewhere, and where containment would not pay, the poll runs plainly.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use tokio::runtime::{Handle, RuntimeFlavor, worker_index};
use tokio::task::block_in_place;

use crate::watch::Watch;

/// The time that a hand-over costs its thread. The first value is an estimate; each hand-over corrects it.
static HANDOVER_NANOS: AtomicU64 = AtomicU64::new(20_000);

/// The thread that takes over wakes up, which costs about as much again.
const COST_FACTOR: u64 = 2;

/// A measurement weighs one part in 8, as in TCP's estimate of the round-trip time (RFC 6298).
const WEIGHT_DIVISOR: u64 = 8;
/// The longest hand-over that counts, ten times the usual one. The host causes longer ones.
const MAX_HANDOVER_NANOS: u64 = 100_000;

thread_local! {
    /// Whether a contained poll runs on this thread. The thread then has nothing left to hand over.
    static IS_CONTAINED: Cell<bool> = const { Cell::new(false) };
    /// Whether tokio refused a hand-over on this thread, because the thread runs one runtime and has entered
    /// another. Nothing shows this beforehand, so the panic hook has printed one message.
    static IS_REFUSED: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether the next poll is expected to exceed its budget by more than a hand-over costs.
///
/// Each poll of a contained watch pays for this comparison.
#[inline]
pub(crate) fn pays(watch: &Watch) -> bool {
    watch
        .expected_overrun()
        .is_some_and(|expected| expected > HANDOVER_NANOS.load(Relaxed) * COST_FACTOR)
}

/// Returns why polls cannot be contained at the caller.
pub(crate) fn obstacle() -> Option<&'static str> {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => None,
        Ok(_) => Some("the runtime has one thread, and no other thread can take over its tasks"),
        Err(_) => Some("there is no tokio runtime here"),
    }
}

/// Permits one contained poll, and gives the permit back when it is dropped.
pub(crate) struct ContainmentPermit<'w> {
    taken: &'w AtomicUsize,
}

impl<'w> ContainmentPermit<'w> {
    /// Returns a permit if the limit allows one and the thread is a worker with tasks to hand over.
    pub(crate) fn acquire(watch: &'w Watch) -> Option<Self> {
        let (taken, limit) = watch.watchdog().contained();
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
    /// Unlike a plain poll, a contained one goes on while its runtime shuts down. If it then uses the runtime, tokio
    /// panics. The task is about to be dropped, so this method returns `Pending` instead of that panic.
    pub(crate) fn poll<T>(self, watch: &Watch, mut poll: impl FnMut() -> Poll<T>) -> Poll<T> {
        let clock = watch.clock();
        let asked = clock.raw();
        let times = Cell::new(None);
        let timed = || {
            let begun = clock.raw();
            watch.counters().expected_overrun.count_contained();
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
                record_handover(before + clock.nanos_between(ended, clock.raw()));
                polled
            }
            (Ok(polled), None) => polled,
            (Err(_), None) => {
                // tokio refused, and the closure did not run.
                IS_REFUSED.set(true);
                poll()
            }
            (Err(payload), Some(_)) if is_shutdown_panic(&*payload) => Poll::Pending,
            (Err(payload), Some(_)) => resume_unwind(payload),
        }
    }
}

impl Drop for ContainmentPermit<'_> {
    fn drop(&mut self) {
        IS_CONTAINED.set(false);
        self.taken.fetch_sub(1, Relaxed);
    }
}

fn record_handover(nanos: u64) {
    let known = HANDOVER_NANOS.load(Relaxed);
    let learnt = known - known / WEIGHT_DIVISOR + nanos.min(MAX_HANDOVER_NANOS) / WEIGHT_DIVISOR;
    HANDOVER_NANOS.store(learnt, Relaxed);
}

/// Returns whether the payload is tokio's panic of a shutdown, and the current runtime is shutting down.
///
/// The text alone proves nothing: another panic may have these words.
fn is_shutdown_panic(payload: &(dyn Any + Send)) -> bool {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.is_some_and(|text| text.contains("being shutdown")) && is_shutting_down()
}

/// Returns whether the current runtime is shutting down: it then cancels a spawned task at once.
fn is_shutting_down() -> bool {
    let Ok(runtime) = Handle::try_current() else {
        return false;
    };
    let probe = pin!(runtime.spawn(std::future::pending::<()>()));
    let handle = probe.abort_handle();
    let polled = probe.poll(&mut Context::from_waker(Waker::noop()));
    handle.abort();
    matches!(polled, Poll::Ready(Err(error)) if error.is_cancelled())
}

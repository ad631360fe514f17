//! Floor 4: work that does not belong on a runtime worker.

mod error;
mod lane;

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::{Span, dispatcher};

use crate::contain::contain;
pub use error::{OffloadError, PanicPayload};
use lane::Job;

/// Runs a closure on the CPU lane: on tokio's blocking pool, and at most as many at once as the
/// machine lends cores to this process ([`std::thread::available_parallelism`]).
///
/// For work that computes. The pool alone would run up to 512 closures at once, and that many
/// threads on a few cores make the runtime's workers wait; here the others queue, in the order in
/// which they came. The current `tracing` span (and its subscriber) is carried over.
///
/// Nothing happens before the future is polled.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), shotclock::OffloadError> {
/// let words = String::from("pass the ball");
/// let count = shotclock::offload(move || words.split(' ').count()).await?;
/// assert_eq!(count, 3);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`OffloadError::Panicked`] if the closure panicked, with the payload;
/// [`OffloadError::NoRuntime`] outside of a tokio runtime; [`OffloadError::Closed`] if the runtime
/// shut down, or could start no thread, before the closure ran.
///
/// # Cancel safety
///
/// Dropping the future while the closure waits for a place takes it out of the queue: it never runs.
/// A closure that has its place (it runs, or the pool is about to run it) goes on to its end, and keeps its place in the lane until then; its result is
/// dropped.
///
/// # Non-guarantees
///
/// A closure that waits for another closure of this lane may wait for ever: do not nest. One that
/// blocks (on a file, a lock, a child process) takes a core's place without using the core;
/// [`tokio::task::spawn_blocking`] is better for it.
pub async fn offload<F, T>(closure: F) -> Result<T, OffloadError>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let lane = lane::cpu();
    let Ok(runtime) = Handle::try_current() else {
        return Err(OffloadError::NoRuntime { lane: lane.name() });
    };
    let (answer, result) = oneshot::channel();
    let (asked, span) = (lane.asked(), Span::current());
    let work = move |done: &mut dyn FnMut()| {
        let running = asked.run();
        let outcome = catch_unwind(AssertUnwindSafe(|| in_span(&span, closure)));
        let outcome = outcome.map_err(|payload| running.panicked(payload));
        // The figures and the place first: who has the result must find them as they are now.
        drop(running);
        done();
        // Nobody may be waiting any more, and the result's destructor may panic.
        contain(move || drop(answer.send(outcome)));
    };
    let ticket = lane.submit(Job {
        work: Box::new(work),
        runtime,
    });
    let result = result.await;
    ticket.used();
    result.unwrap_or_else(|_| Err(OffloadError::Closed { lane: lane.name() }))
}

fn in_span<T>(span: &Span, closure: impl FnOnce() -> T) -> T {
    // The thread of the pool may have another subscriber than the span: one that is scoped is
    // scoped to a thread.
    match span.with_subscriber(|(_, dispatch)| dispatch.clone()) {
        Some(dispatch) => dispatcher::with_default(&dispatch, || span.in_scope(closure)),
        None => closure(),
    }
}

/// Makes the figures of the lane visible before anything was offloaded.
pub(crate) fn enroll_cpu_lane() {
    lane::cpu();
}

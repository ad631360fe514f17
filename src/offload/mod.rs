//! Floor 4: work that does not belong on a runtime worker.

pub(crate) mod backend;
mod builder;
mod cancel;
mod context;
mod error;
mod future;
mod lane;
pub(crate) mod queue;
mod reentrancy;
mod timing;

use std::sync::{Arc, OnceLock};

use crate::counters::lane_counters;
use crate::publish;
use crate::sys;
use backend::Backend;
pub use builder::LaneBuilder;
pub use cancel::Cancel;
pub use error::{OffloadError, PanicPayload};
pub use future::{OffloadExt, Offloaded};
pub use lane::{Lane, LaneStats};
use queue::Queue;

/// The CPU lane. In the child of a fork no thread waits for a thread that may be making it.
fn cpu() -> &'static Lane {
    static CPU: OnceLock<Lane> = OnceLock::new();
    sys::note_home_process();
    match CPU.get() {
        Some(lane) => lane,
        None if sys::is_forked() => Box::leak(Box::new(new_cpu_lane())),
        None => CPU.get_or_init(new_cpu_lane),
    }
}

fn new_cpu_lane() -> Lane {
    // Without its thread the lane still works; only its figures are not seen.
    let _ = publish::start();
    Lane {
        queue: Queue::new(builder::cores(), None, Backend::Tokio, lane_counters("cpu")),
        hooks: Arc::default(),
    }
}

/// Runs a closure on the CPU lane: on tokio's blocking pool, and at most as many at once as the
/// machine lends cores to this process ([`std::thread::available_parallelism`]).
///
/// For work that computes. The pool alone would run up to 512 closures at once, and that many
/// threads on a few cores make the runtime's workers wait; here the others queue, in the order in
/// which they came. The current `tracing` span (and its subscriber) is carried over. [`Lane`] makes
/// lanes of another limit, with a bounded queue, and on other threads.
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
/// A closure that has its place (it runs, or the pool is about to run it) goes on to its end, and
/// keeps its place in the lane until then; its result is dropped.
///
/// # Non-guarantees
///
/// A closure that blocks (on a file, a lock, a child process) takes a core's place without using the
/// core; [`tokio::task::spawn_blocking`], or a lane with a larger limit, is better for it. One that
/// blocks on a task which offloads may wait for ever.
pub async fn offload<F, T>(closure: F) -> Result<T, OffloadError>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    cpu().run(closure).await
}

/// Makes the figures of the lane visible before anything was offloaded.
pub(crate) fn register_cpu_lane() {
    cpu();
}

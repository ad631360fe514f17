//! Floor 4: runs work on other threads than the runtime's workers.

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

/// Returns the CPU lane. In the child of a fork, the thread that was making it may not exist, so the child makes its own.
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
    // Without the metrics thread the lane works, but its metrics are missing.
    let _ = publish::start();
    Lane {
        queue: Queue::new(builder::cores(), None, Backend::Tokio, lane_counters("cpu")),
        hooks: Arc::default(),
    }
}

/// Runs a closure on the CPU lane: on tokio's blocking pool, with at most one closure at once for each core of this process
/// ([`std::thread::available_parallelism`]).
///
/// Use it for work that computes. The pool alone would run up to 512 closures at once, and this many threads on a few cores
/// delay the runtime's workers. Here the other closures queue in their order. The closure runs in the caller's `tracing`
/// span, with its subscriber. Use a [`Lane`] for another limit, a bounded queue, or other threads.
///
/// Nothing happens before the first poll of the future.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), shotclock::OffloadError> {
/// let words = String::from("one two three");
/// let count = shotclock::offload(move || words.split(' ').count()).await?;
/// assert_eq!(count, 3);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// - [`OffloadError::Panicked`] if the closure panicked, with the payload.
/// - [`OffloadError::NoRuntime`] outside a tokio runtime.
/// - [`OffloadError::Closed`] if the runtime shut down, or could start no thread, before the closure ran.
///
/// # Cancel safety
///
/// If the future is dropped while the closure is queued, the closure never runs. A closure with a permit runs to its end,
/// keeps its permit until then, and its result is dropped.
///
/// # Non-guarantees
///
/// A closure that blocks on a file, a lock or a child process holds a permit without using a core. Use
/// [`tokio::task::spawn_blocking`] for it, or a lane with a larger limit. A closure that blocks on a task that offloads may
/// wait without end.
pub async fn offload<F, T>(closure: F) -> Result<T, OffloadError>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    cpu().run(closure).await
}

/// Makes the CPU lane, so that its metrics exist before the first closure.
pub(crate) fn register_cpu_lane() {
    cpu();
}

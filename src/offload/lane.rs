//! The lane, as users hold it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::oneshot;

use super::cancel::Cancel;
use super::context::{Hook, OffloadContext};
use super::error::OffloadError;
use super::queue::{Job, JobKind, Load, Queue, RunSpan, WhenFull};
use super::reentrancy::Lanes;
use super::timing::WaitTimer;
use crate::catch_panic::catch_panic;

/// Runs closures that do not belong on a runtime worker, with a limit.
///
/// At most `limit` closures run at once. The others wait in their order. A lane is a handle: a clone is cheap, and all
/// clones are the same lane. [`offload`](crate::offload()) uses one lane for the whole process. Make others to keep one
/// kind of work from delaying another.
///
/// # Examples
///
/// ```
/// use shotclock::Lane;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let thumbnails = Lane::builder("thumbnails").limit(4).queue(256).build()?;
///
/// let image = vec![7u8; 1_000];
/// let small = thumbnails.run(move || image[..10].to_vec()).await?;
///
/// assert_eq!(small.len(), 10);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Lane {
    pub(super) queue: Arc<Queue>,
    pub(super) hooks: Arc<[Hook]>,
}

/// Holds the load of a lane now, and its counters. [`Lane::stats`] makes it.
///
/// Lanes of one name share the counters, as in the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneStats {
    /// The number of closures that run, or that the pool is about to run.
    pub running: usize,
    /// The number of queued closures.
    pub queued: usize,
    /// The number of callers that wait for room in the queue.
    pub waiting: usize,
    /// The number of refused closures: [`Lane::try_run`] found the queue full, or the lane was closed.
    pub rejected: u64,
    /// The number of closures that panicked.
    pub panics: u64,
    /// The number of closures that ran on the calling thread, because it is a thread of the same lane.
    pub inline: u64,
}

impl Lane {
    /// Returns the name of the lane.
    pub fn name(&self) -> &str {
        &self.queue.counts.name
    }

    /// Returns the largest number of closures that run at once.
    pub fn limit(&self) -> usize {
        self.queue.limit
    }

    /// Runs a closure on one of the lane's threads.
    ///
    /// If the queue is full, the caller waits for room in it, in the order of the calls, so memory stays bounded. Nothing
    /// happens before the first poll of the future. The closure runs in the caller's `tracing` span, with its subscriber, in
    /// the caller's runtime, and inside the hooks of [`LaneBuilder::carry`](crate::offload::LaneBuilder::carry).
    ///
    /// # Errors
    ///
    /// - [`OffloadError::Panicked`] if the closure panicked, with the payload.
    /// - [`OffloadError::Closed`] if the lane was closed, or the runtime shut down, before the closure ran.
    /// - [`OffloadError::Cancelled`] if the closure was queued at a call of [`cancel_all`](Self::cancel_all).
    /// - [`OffloadError::NoRuntime`] outside a tokio runtime, if the lane runs on one.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped while the closure waits, the closure never runs. A closure with a permit runs to its end,
    /// keeps its permit until then, and its result is dropped. [`run_cancellable`](Self::run_cancellable) lets the closure
    /// stop earlier.
    ///
    /// # Non-guarantees
    ///
    /// A closure may offload to its own lane and block on that. Then the inner closure runs on the same thread, and is
    /// counted (`shotclock_offload_inline_total`). But a closure that blocks on a *task* that offloads to the lane may wait
    /// without end, because the lane cannot detect that.
    pub async fn run<F, T>(&self, closure: F) -> Result<T, OffloadError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.send(closure, WhenFull::Wait).await
    }

    /// Runs a closure like [`run`](Self::run), but does not wait for room in a full queue.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run), and [`OffloadError::QueueFull`] if the queue is full. Without
    /// [`LaneBuilder::queue`](crate::offload::LaneBuilder::queue) it never is.
    ///
    /// # Examples
    ///
    /// ```
    /// use shotclock::{Lane, OffloadError};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let lane = Lane::builder("reports").limit(1).queue(0).build()?;
    /// let (started, start) = tokio::sync::oneshot::channel();
    /// let (open, gate) = std::sync::mpsc::channel::<()>();
    /// let busy = tokio::spawn({
    ///     let lane = lane.clone();
    ///     async move { lane.run(move || (started.send(()), gate.recv())).await }
    /// });
    /// start.await?;
    ///
    /// let refused = lane.try_run(|| "a report").await;
    ///
    /// assert!(matches!(refused, Err(OffloadError::QueueFull { .. })));
    /// # drop(open);
    /// # busy.await?.ok();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// As for [`run`](Self::run).
    pub async fn try_run<F, T>(&self, closure: F) -> Result<T, OffloadError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.send(closure, WhenFull::Refuse).await
    }

    /// Runs a closure that can detect the drop of its future.
    ///
    /// # Examples
    ///
    /// ```
    /// use shotclock::Lane;
    /// use std::time::Duration;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let lane = Lane::builder("search").build()?;
    /// let search = lane.run_cancellable(|cancel| {
    ///     while !cancel.is_cancelled() { /* search on */ }
    /// });
    ///
    /// // The future is dropped, and the closure ends.
    /// assert!(tokio::time::timeout(Duration::from_millis(5), search).await.is_err());
    /// lane.close().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`run`](Self::run).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future while the closure waits takes it out of the queue; dropping it while the
    /// closure runs flips its token. It keeps its place until it returns.
    pub async fn run_cancellable<F, T>(&self, closure: F) -> Result<T, OffloadError>
    where
        F: FnOnce(Cancel) -> T + Send + 'static,
        T: Send + 'static,
    {
        let cancel = self.queue.token();
        let _on_drop = cancel.on_drop();
        self.send(move || closure(cancel), WhenFull::Wait).await
    }

    /// Closes the lane for new work, and waits until all accepted work has ended.
    ///
    /// That is all running and queued closures, and the futures that are [offloaded](crate::OffloadExt::offloaded) to this
    /// lane. Callers that wait for room in a full queue get [`OffloadError::Closed`] at once. Called inside a closure of this
    /// lane, it returns without a wait. Do not await it in a future that is offloaded to this lane, because it would wait for
    /// itself.
    ///
    /// # Cancel safety
    ///
    /// The first poll closes the lane for good. A second call waits again.
    pub async fn close(&self) {
        self.queue.close();
        if !Lanes::here().contains(self.queue.id) {
            self.queue.drained().await;
        }
    }

    /// Cancels all work of the lane. The lane stays open.
    ///
    /// Closures that have not begun never run, and their callers get [`OffloadError::Cancelled`]. The tokens of running
    /// cancellable closures say that they are cancelled. A future that is [offloaded](crate::OffloadExt::offloaded) to the
    /// lane ends at its next poll.
    pub fn cancel_all(&self) {
        self.queue.cancel_all();
    }

    /// Reads the load of the lane now, and its counters.
    pub fn stats(&self) -> LaneStats {
        let Load {
            running,
            queued,
            waiting,
        } = self.queue.load();
        let counts = &self.queue.counts;
        LaneStats {
            running,
            queued,
            waiting,
            rejected: counts.rejected.load(Relaxed),
            panics: counts.panics.load(Relaxed),
            inline: counts.inline.load(Relaxed),
        }
    }

    async fn send<F, T>(&self, closure: F, when_full: WhenFull) -> Result<T, OffloadError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let queue = &self.queue;
        let asked = WaitTimer::now(queue.counts);
        let lanes = Lanes::here();
        // In the child of a fork, a lane has no threads.
        if lanes.contains(queue.id) || asked.is_forked() {
            queue.counts.inline.fetch_add(1, Relaxed);
            return self.here(asked, closure);
        }
        let runtime = queue.runtime()?;
        let cancellations = queue.cancellations();
        let to_enter = runtime.clone().filter(|_| !queue.needs_runtime());
        let context = OffloadContext::from_here(to_enter, &self.hooks);
        let (answer, result) = oneshot::channel();
        let id = queue.id;
        let work = move |done: &mut dyn FnMut(RunSpan)| {
            let running = asked.run();
            let work = || lanes.within(id, closure);
            let outcome = catch_unwind(AssertUnwindSafe(|| context.around(work)));
            let outcome = outcome.map_err(|payload| running.panicked(payload));
            // First the metrics and the permit: the caller that has the result must find them up to date.
            done(running.end());
            // The caller may be gone, and then the destructor of the result may panic.
            catch_panic(move || drop(answer.send(outcome)));
        };
        let job = Job {
            work: Box::new(work),
            runtime,
            kind: JobKind::Closure,
        };
        let ticket = queue.submit(job, when_full)?;
        let result = result.await;
        ticket.disarm();
        match result {
            Ok(Ok(Some(value))) => Ok(value),
            Ok(Err(error)) => Err(error),
            Ok(Ok(None)) | Err(_) => Err(queue.discarded_error(cancellations)),
        }
    }

    /// Runs a closure on the calling thread, which is one of the lane's or in the child of a fork.
    fn here<T>(&self, asked: WaitTimer, closure: impl FnOnce() -> T) -> Result<T, OffloadError> {
        let running = asked.run();
        let outcome = catch_unwind(AssertUnwindSafe(closure));
        let outcome = outcome.map_err(|payload| running.panicked(payload));
        running.end();
        outcome
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane")
            .field("name", &self.name())
            .field("limit", &self.limit())
            .finish_non_exhaustive()
    }
}

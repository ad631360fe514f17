//! The lane that users hold.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::oneshot;

use super::cancel::Cancel;
use super::context::{Hook, OffloadContext};
use super::error::OffloadError;
use super::queue::{Job, JobKind, Load, Queue, Ran, WhenFull};
use super::reentrancy::Lanes;
use super::timing::Asked;
use crate::catch_panic::catch_panic;

/// A bounded place to run closures that do not belong on a runtime worker.
///
/// At most `limit` of them run at once; the others wait, in the order in which they came. It is a
/// handle: cloning it is cheap, and all clones are the same lane. The lane of [`offload`](crate::offload())
/// is one for the whole process; make others where one kind of work must not hold up another.
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

/// What a lane does at this moment, and what it has counted. Made by [`Lane::stats`].
///
/// What was counted is counted under the lane's name, as in the metrics: lanes of one name share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneStats {
    /// How many closures run, or are about to.
    pub running: usize,
    /// How many are queued.
    pub queued: usize,
    /// How many wait for a place in the queue, because it is full.
    pub waiting: usize,
    /// How many were refused: by [`Lane::try_run`] because the queue was full, or because the lane was
    /// closed.
    pub rejected: u64,
    /// How many panicked.
    pub panics: u64,
    /// How many were run where they were offloaded, because that was on a thread of the same lane.
    pub inline: u64,
}

impl Lane {
    /// The name of the lane.
    pub fn name(&self) -> &str {
        &self.queue.counts.name
    }

    /// How many closures run at once, at most.
    pub fn limit(&self) -> usize {
        self.queue.limit
    }

    /// Runs a closure on one of the lane's threads.
    ///
    /// If the queue is full, it waits for a place there, in the order of the calls: the caller is held
    /// up, and memory stays bounded. Nothing happens before the future is polled. The current
    /// `tracing` span (and its subscriber), the runtime, and what [`LaneBuilder::carry`](crate::offload::LaneBuilder::carry) says are
    /// context over.
    ///
    /// # Errors
    ///
    /// [`OffloadError::Panicked`] if the closure panicked, with the payload; [`OffloadError::Closed`]
    /// if the lane was closed, or the runtime shut down, before it ran; [`OffloadError::Cancelled`] if
    /// it was queued when [`cancel_all`](Self::cancel_all) was called; [`OffloadError::NoRuntime`]
    /// outside of a tokio runtime, if the lane runs on one.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future while the closure waits takes it out of the queue: it never runs. A closure
    /// that has its place (it runs, or the pool is about to run it) goes on to its end, and keeps its
    /// place until then; its result is dropped.
    /// [`run_cancellable`](Self::run_cancellable) tells it.
    ///
    /// # Non-guarantees
    ///
    /// A closure that offloads to its own lane and blocks on that does not wait for itself: what it
    /// offloads is run on its thread, and counted (`shotclock_offload_inline_total`). But one that
    /// blocks on a *task* which offloads to the lane may wait for ever, because nobody can see that.
    pub async fn run<F, T>(&self, closure: F) -> Result<T, OffloadError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.send(closure, WhenFull::Wait).await
    }

    /// Runs a closure as [`run`](Self::run) does, but does not wait for a place in a full queue.
    ///
    /// # Errors
    ///
    /// As of [`run`](Self::run); and [`OffloadError::QueueFull`] if there is no place in the queue.
    /// Without [`LaneBuilder::queue`](crate::offload::LaneBuilder::queue) there always is.
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
    /// As of [`run`](Self::run).
    pub async fn try_run<F, T>(&self, closure: F) -> Result<T, OffloadError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.send(closure, WhenFull::Refuse).await
    }

    /// Runs a closure that is told when nobody waits for it any more.
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
    ///     while !cancel.is_cancelled() { /* looks at one more thing */ }
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
    /// As of [`run`](Self::run).
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

    /// Takes nothing in any more, and waits until everything that was taken in has ended: what runs,
    /// what is queued, and the futures that are [offloaded](crate::OffloadExt::offloaded) here.
    ///
    /// Who waits for a place in a full queue is told [`OffloadError::Closed`] at once. Called on a
    /// thread of this lane, from within a closure, it does not wait for that closure and returns. Awaited
    /// in a future that is offloaded to this lane, it waits for itself: do not.
    ///
    /// # Cancel safety
    ///
    /// The lane is closed when this is first polled, and stays so. It may be awaited again.
    pub async fn close(&self) {
        self.queue.close();
        if !Lanes::here().contains(self.queue.id) {
            self.queue.drained().await;
        }
    }

    /// Takes everything out that has not begun, in the queue or before it, whose callers are told
    /// [`OffloadError::Cancelled`], and flips the tokens of the cancellable closures that run. A future that is
    /// [offloaded](crate::OffloadExt::offloaded) here ends when it would be polled next. The lane stays
    /// open.
    pub fn cancel_all(&self) {
        self.queue.cancel_all();
    }

    /// What the lane does at this moment, and what it has counted.
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
        let asked = Asked::now(queue.counts);
        let lanes = Lanes::here();
        // In the child of a fork no thread works for a lane.
        if lanes.contains(queue.id) || asked.is_forked() {
            queue.counts.inline.fetch_add(1, Relaxed);
            return self.here(asked, closure);
        }
        let runtime = queue.runtime()?;
        let cancellations = queue.cancellations();
        let to_enter = runtime.clone().filter(|_| !queue.is_of_the_runtime());
        let context = OffloadContext::from_here(to_enter, &self.hooks);
        let (answer, result) = oneshot::channel();
        let id = queue.id;
        let work = move |done: &mut dyn FnMut(Ran)| {
            let running = asked.run();
            let work = || lanes.within(id, closure);
            let outcome = catch_unwind(AssertUnwindSafe(|| context.around(work)));
            let outcome = outcome.map_err(|payload| running.panicked(payload));
            // The figures and the place first: who has the result must find them as they are now.
            done(running.end());
            // Nobody may be waiting any more, and the result's destructor may panic.
            catch_panic(move || drop(answer.send(outcome)));
        };
        let job = Job {
            work: Box::new(work),
            runtime,
            kind: JobKind::Closure,
        };
        let ticket = queue.submit(job, when_full)?;
        let result = result.await;
        ticket.used();
        match result {
            Ok(Ok(Some(value))) => Ok(value),
            Ok(Err(error)) => Err(error),
            Ok(Ok(None)) | Err(_) => Err(queue.gone(cancellations)),
        }
    }

    /// Runs a closure on this thread, which works for the lane already, or has no other thread.
    fn here<T>(&self, asked: Asked, closure: impl FnOnce() -> T) -> Result<T, OffloadError> {
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

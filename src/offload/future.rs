//! Polls a whole future on the threads of a lane.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use async_task::{FallibleTask, Runnable};
use tokio::runtime::Handle;

use super::context::OffloadContext;
use super::error::OffloadError;
use super::lane::Lane;
use super::queue::{FutureToken, Job, JobKind, Queue, RunSpan};
use super::reentrancy::Lanes;
use super::timing::WaitTimer;
use crate::catch_panic::catch_panic;
use crate::sync::{Lock, LockGuard};
use crate::sys;

/// Adds `.offloaded(&lane)` to futures.
pub trait OffloadExt: Future + Sized {
    /// Polls this future on the threads of a lane instead of the runtime's workers.
    ///
    /// Use it for futures that compute between their awaits and cannot easily be split. Each poll enters the caller's
    /// runtime, so timers, sockets and `tokio::spawn` work inside. It also enters the caller's `tracing` span, and calls
    /// the hooks of [`LaneBuilder::carry`](crate::offload::LaneBuilder::carry). Between two polls the future holds no permit
    /// of the lane. A [watched](crate::WatchExt::watched) future stays watched.
    ///
    /// # Examples
    ///
    /// ```
    /// use shotclock::{Lane, OffloadExt as _};
    /// use std::time::Duration;
    ///
    /// async fn decode(rows: Vec<u64>) -> u64 {
    ///     tokio::time::sleep(Duration::from_millis(1)).await;
    ///     rows.iter().sum()
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let lane = Lane::builder("decode").build()?;
    /// let sum = decode(vec![1, 2, 3]).offloaded(&lane).await?;
    /// assert_eq!(sum, 6);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Lane::run`]. A poll that panics ends the future.
    ///
    /// # Cancel safety
    ///
    /// A drop cancels the wrapped future. The lane polls it no more, and drops it on one of its threads. If those threads
    /// have ended, the dropping thread drops it.
    ///
    /// # Non-guarantees
    ///
    /// The future must own its data (`Send + 'static`), because a thread of the lane may still poll it after a
    /// cancellation. Tokio's cooperative budget does not apply on the lane's threads. So a stream that is always ready holds
    /// its permit to its end. [`yield_after`](crate::yield_after()) works there too. Do not block in the future on work that
    /// needs a permit of the same lane.
    fn offloaded(self, lane: &Lane) -> Offloaded<Self>
    where
        Self: Send + 'static,
        Self::Output: Send,
    {
        Offloaded {
            stage: OffloadStage::New(self),
            lane: lane.clone(),
            cancellations: lane.queue.cancellations(),
        }
    }
}

impl<F: Future> OffloadExt for F {}

/// Polls a future on the threads of a lane. [`OffloadExt::offloaded`] makes it.
#[must_use = "futures do nothing unless they are polled"]
pub struct Offloaded<F: Future> {
    stage: OffloadStage<F>,
    lane: Lane,
    cancellations: u64,
}

enum OffloadStage<F: Future> {
    New(F),
    OnTheLane(FallibleTask<()>, Outbox<F::Output>),
    /// The caller is a thread of the lane that blocks on the future, which must not wait for a permit.
    Here(Pin<Box<F>>),
    Done,
}

/// The place of the output.
type Outbox<T> = Arc<Lock<Option<Result<T, OffloadError>>>>;

// The wrapped future is pinned only after it is in a box.
impl<F: Future> Unpin for Offloaded<F> {}

impl<F> Future for Offloaded<F>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    type Output = Result<F::Output, OffloadError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let OffloadStage::New(_) = this.stage
            && let OffloadStage::New(future) =
                std::mem::replace(&mut this.stage, OffloadStage::Done)
        {
            this.stage = start(&this.lane, this.cancellations, future)?;
        }
        let outcome = match &mut this.stage {
            // The thread that would poll it exists only in the parent.
            OffloadStage::OnTheLane(..) if sys::is_forked() => {
                Err(this.lane.queue.discarded_error(this.cancellations))
            }
            OffloadStage::OnTheLane(task, outbox) => {
                let ended = ready!(Pin::new(task).poll(cx));
                let outcome = ended.and_then(|()| take(outbox));
                outcome.unwrap_or_else(|| Err(this.lane.queue.discarded_error(this.cancellations)))
            }
            OffloadStage::Here(future) => ready!(poll_here(&this.lane, future.as_mut(), cx)),
            OffloadStage::New(_) | OffloadStage::Done => {
                panic!("`Offloaded` was polled after completion")
            }
        };
        this.stage = OffloadStage::Done;
        Poll::Ready(outcome)
    }
}

fn start<F>(lane: &Lane, cancellations: u64, future: F) -> Result<OffloadStage<F>, OffloadError>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let queue = &lane.queue;
    if Lanes::here().contains(queue.id) || sys::is_forked() {
        queue.counts.inline.fetch_add(1, Relaxed);
        return Ok(OffloadStage::Here(Box::pin(future)));
    }
    let runtime = queue.runtime()?;
    let to_enter = runtime.clone().filter(|_| !queue.needs_runtime());
    let outbox = Outbox::default();
    let guest = LaneTask {
        future: Some(Box::pin(future)),
        outbox: Arc::clone(&outbox),
        context: OffloadContext::from_here(to_enter, &lane.hooks),
        queue: Arc::clone(queue),
        cancellations,
        _token: queue.accept_future()?,
    };
    let queue = Arc::clone(queue);
    let schedule = move |runnable| poll_on(&queue, runtime.clone(), runnable);
    let (runnable, task) = async_task::spawn(guest, schedule);
    runnable.schedule();
    Ok(OffloadStage::OnTheLane(task.fallible(), outbox))
}

/// Queues one poll of a future.
fn poll_on(queue: &Arc<Queue>, runtime: Option<Handle>, runnable: Runnable) {
    let asked = WaitTimer::now(queue.counts);
    if asked.is_forked() {
        // The drop wakes the caller with an error. A pool may wait without end for a lock of its own.
        return drop(runnable);
    }
    let work = move |done: &mut dyn FnMut(RunSpan)| {
        let running = asked.run();
        catch_panic(|| Lanes::outside(|| runnable.run()));
        done(running.end());
    };
    queue.submit_poll(Job {
        work: Box::new(work),
        runtime,
        kind: JobKind::Poll,
    });
}

fn poll_here<F: Future>(
    lane: &Lane,
    future: Pin<&mut F>,
    cx: &mut Context<'_>,
) -> Poll<Result<F::Output, OffloadError>> {
    let running = WaitTimer::now(lane.queue.counts).run();
    let polled = match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
        Ok(polled) => polled.map(Ok),
        Err(payload) => Poll::Ready(Err(running.panicked(payload))),
    };
    running.end();
    polled
}

/// A future on a lane, with the caller's context.
struct LaneTask<F: Future> {
    future: Option<Pin<Box<F>>>,
    outbox: Outbox<F::Output>,
    context: OffloadContext,
    queue: Arc<Queue>,
    cancellations: u64,
    _token: FutureToken,
}

impl<F: Future> Future for LaneTask<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let Some(future) = &mut this.future else {
            return Poll::Ready(());
        };
        if this.queue.cancellations() != this.cancellations {
            return Poll::Ready(());
        }
        let poll = || this.context.around(|| future.as_mut().poll(cx));
        let outcome = match catch_unwind(AssertUnwindSafe(poll)) {
            Ok(Some(Poll::Ready(output))) => Ok(output),
            Ok(_) => return Poll::Pending,
            Err(payload) => Err(OffloadError::panicked(this.queue.counts, payload)),
        };
        this.drop_future();
        *lock(&this.outbox) = Some(outcome);
        Poll::Ready(())
    }
}

impl<F: Future> LaneTask<F> {
    /// Drops the future. Its destructor may panic, and `async_task` would abort on that.
    fn drop_future(&mut self) {
        catch_panic(|| self.context.around(|| drop(self.future.take())));
    }
}

impl<F: Future> Drop for LaneTask<F> {
    fn drop(&mut self) {
        self.drop_future();
        // The caller did not take the output.
        if Arc::strong_count(&self.outbox) == 1 {
            catch_panic(|| drop(take(&self.outbox)));
        }
    }
}

fn lock<T>(outbox: &Outbox<T>) -> LockGuard<'_, Option<Result<T, OffloadError>>> {
    outbox.lock()
}

fn take<T>(outbox: &Outbox<T>) -> Option<Result<T, OffloadError>> {
    lock(outbox).take()
}

impl<F: Future> fmt::Debug for Offloaded<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offloaded")
            .field("lane", &self.lane.name())
            .finish_non_exhaustive()
    }
}

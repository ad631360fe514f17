//! A whole future, polled on the threads of a lane.

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
use super::queue::{Job, JobKind, Queue, Ran, TakenIn};
use super::reentrancy::Lanes;
use super::timing::Asked;
use crate::catch_panic::catch_panic;
use crate::sync::{Lock, LockGuard};
use crate::sys;

/// `.offloaded(&lane)` for futures.
pub trait OffloadExt: Future + Sized {
    /// Polls this future on the threads of a lane, and not on the runtime's workers: for futures that
    /// compute between their awaits, and cannot easily be taken apart.
    ///
    /// The runtime of the caller is entered in each poll, so that timers, sockets and `tokio::spawn`
    /// work inside; so are its `tracing` span and what [`LaneBuilder::carry`](crate::offload::LaneBuilder::carry)
    /// says. Between two polls it holds no place in the lane. If it is
    /// [watched](crate::WatchExt::watched), it goes on to be.
    ///
    /// # Examples
    ///
    /// ```
    /// use shotclock::{Lane, OffloadExt as _};
    /// use std::time::Duration;
    ///
    /// async fn decode(rows: Vec<u64>) -> u64 {
    ///     tokio::time::sleep(Duration::from_millis(1)).await;
    ///     rows.iter().sum() // as if it took long
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
    /// As of [`Lane::run`]. A poll that panics ends it.
    ///
    /// # Cancel safety
    ///
    /// Dropping it cancels what it wraps: that is not polled again, and is dropped on a thread of the
    /// lane (where it is, if the lane's threads are gone).
    ///
    /// # Non-guarantees
    ///
    /// It takes a future that owns what it needs (`Send + 'static`): what it borrowed could be gone
    /// before a thread of the lane has noticed that it was cancelled. Tokio's budget for cooperation
    /// does not hold on the lane's threads, so a stream in it that is always ready keeps its place
    /// until it ends: [`yield_after`](crate::yield_after()) works there too. Do not block in it on what
    /// needs a place in the same lane.
    fn offloaded(self, lane: &Lane) -> Offloaded<Self>
    where
        Self: Send + 'static,
        Self::Output: Send,
    {
        Offloaded {
            stage: Stage::New(self),
            lane: lane.clone(),
            cancellations: lane.queue.cancellations(),
        }
    }
}

impl<F: Future> OffloadExt for F {}

/// A future that is polled on the threads of a lane. Made by [`OffloadExt::offloaded`].
#[must_use = "futures do nothing unless they are polled"]
pub struct Offloaded<F: Future> {
    stage: Stage<F>,
    lane: Lane,
    cancellations: u64,
}

enum Stage<F: Future> {
    New(F),
    OnTheLane(FallibleTask<()>, Outbox<F::Output>),
    /// On a thread of the lane, which blocks on it: it must not wait for a place.
    Here(Pin<Box<F>>),
    Done,
}

/// Where the output is put.
type Outbox<T> = Arc<Lock<Option<Result<T, OffloadError>>>>;

// What is wrapped is not pinned before it is in a box.
impl<F: Future> Unpin for Offloaded<F> {}

impl<F> Future for Offloaded<F>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    type Output = Result<F::Output, OffloadError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Stage::New(_) = this.stage
            && let Stage::New(future) = std::mem::replace(&mut this.stage, Stage::Done)
        {
            this.stage = start(&this.lane, this.cancellations, future)?;
        }
        let outcome = match &mut this.stage {
            // The thread that would poll it is the parent's.
            Stage::OnTheLane(..) if sys::is_forked() => {
                Err(this.lane.queue.gone(this.cancellations))
            }
            Stage::OnTheLane(task, outbox) => {
                let ended = ready!(Pin::new(task).poll(cx));
                let outcome = ended.and_then(|()| take(outbox));
                outcome.unwrap_or_else(|| Err(this.lane.queue.gone(this.cancellations)))
            }
            Stage::Here(future) => ready!(poll_here(&this.lane, future.as_mut(), cx)),
            Stage::New(_) | Stage::Done => panic!("`Offloaded` was polled after it was done"),
        };
        this.stage = Stage::Done;
        Poll::Ready(outcome)
    }
}

fn start<F>(lane: &Lane, cancellations: u64, future: F) -> Result<Stage<F>, OffloadError>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let queue = &lane.queue;
    if Lanes::here().contains(queue.id) || sys::is_forked() {
        queue.counts.inline.fetch_add(1, Relaxed);
        return Ok(Stage::Here(Box::pin(future)));
    }
    let runtime = queue.runtime()?;
    let to_enter = runtime.clone().filter(|_| !queue.is_of_the_runtime());
    let outbox = Outbox::default();
    let guest = Guest {
        future: Some(Box::pin(future)),
        outbox: Arc::clone(&outbox),
        context: OffloadContext::from_here(to_enter, &lane.hooks),
        queue: Arc::clone(queue),
        cancellations,
        _taken_in: queue.take_in()?,
    };
    let queue = Arc::clone(queue);
    let schedule = move |runnable| poll_on(&queue, runtime.clone(), runnable);
    let (runnable, task) = async_task::spawn(guest, schedule);
    runnable.schedule();
    Ok(Stage::OnTheLane(task.fallible(), outbox))
}

/// Queues one poll.
fn poll_on(queue: &Arc<Queue>, runtime: Option<Handle>, runnable: Runnable) {
    let asked = Asked::now(queue.counts);
    if asked.is_forked() {
        // Dropping it tells whoever awaits it; a pool might wait for a lock of its own for ever.
        return drop(runnable);
    }
    let work = move |done: &mut dyn FnMut(Ran)| {
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
    let running = Asked::now(lane.queue.counts).run();
    let polled = match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
        Ok(polled) => polled.map(Ok),
        Err(payload) => Poll::Ready(Err(running.panicked(payload))),
    };
    running.end();
    polled
}

/// A future on a lane.
struct Guest<F: Future> {
    future: Option<Pin<Box<F>>>,
    outbox: Outbox<F::Output>,
    context: OffloadContext,
    queue: Arc<Queue>,
    cancellations: u64,
    _taken_in: TakenIn,
}

impl<F: Future> Future for Guest<F> {
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

impl<F: Future> Guest<F> {
    /// Its destructor may panic, which must not reach `async_task`: that would abort.
    fn drop_future(&mut self) {
        catch_panic(|| self.context.around(|| drop(self.future.take())));
    }
}

impl<F: Future> Drop for Guest<F> {
    fn drop(&mut self) {
        self.drop_future();
        // An output that nobody fetched.
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

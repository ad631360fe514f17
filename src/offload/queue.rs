//! What waits in a lane and what runs, and where.
//!
//! A thread that has done its job takes the next one from the queue itself: with many in flight
//! nothing is handed from thread to thread. After a while it gives its place back all the same, so
//! that a pool that others use too, or that shuts down, is not held on to.
//!
//! # Invariants
//!
//! 1. `running` counts the [`Place`]s that exist; there are never more than `limit`.
//! 2. A job is queued only if there is no place or others wait; whenever a place becomes free while
//!    jobs wait, the place takes the next or [`Queue::fill`] runs. So none waits beside a free place.
//! 3. A job is in the queue, or in the hands of a place, or gone; each is run at most once.
//! 4. Everything that waits is in one order, that of its coming. The first `places` closures of it are
//!    in the queue; further ones wait for a place there, which is to say, behind them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::backend::Backend;
use super::cancel::Cancel;
use super::error::OffloadError;
use crate::catch_panic::catch_panic;
use crate::counters::LaneCounters;
use crate::sync::{ModelledGuard, ModelledLock, thread_local};
use crate::sys;

/// How long a thread works jobs off one after the other.
const TURN: Duration = Duration::from_millis(5);

/// The queue of one lane and its places.
pub(crate) struct Queue {
    pub(super) id: u64,
    pub(super) limit: usize,
    pub(super) counts: &'static LaneCounters,
    backend: Backend,
    /// How many closures may be queued.
    places: usize,
    /// How often everything was cancelled.
    cancelled: Arc<AtomicU64>,
    state: ModelledLock<State>,
    drained: Notify,
}

#[derive(Default)]
struct State {
    running: usize,
    tickets: u64,
    /// By ticket, so that the first is the oldest, and any can be withdrawn.
    queue: BTreeMap<u64, Job>,
    /// How many of them are closures, and not polls of futures.
    closures: usize,
    /// Futures that were taken in and have not ended, whether they are polled or wait.
    futures: usize,
    is_closed: bool,
}

impl State {
    fn is_drained(&self) -> bool {
        self.running == 0 && self.queue.is_empty() && self.futures == 0
    }

    fn push(&mut self, job: Job) -> u64 {
        self.tickets += 1;
        self.closures += usize::from(job.kind == JobKind::Closure);
        self.queue.insert(self.tickets, job);
        self.tickets
    }

    fn remove(&mut self, ticket: u64) -> Option<Job> {
        let job = self.queue.remove(&ticket)?;
        self.closures -= usize::from(job.kind == JobKind::Closure);
        Some(job)
    }

    fn first(&self) -> Option<(u64, &Job)> {
        let (ticket, job) = self.queue.first_key_value()?;
        Some((*ticket, job))
    }
}

/// Calls its argument when it is done, before it tells anybody, with when it began and ended.
pub(crate) type Work = Box<dyn FnOnce(&mut dyn FnMut(Ran)) + Send>;

/// From when to when something ran. The clock is read for the figures anyway.
#[derive(Clone, Copy)]
pub(crate) struct Ran {
    pub(crate) from: Instant,
    pub(crate) to: Instant,
}

/// Something to run.
pub(crate) struct Job {
    pub(crate) work: Work,
    /// Where it comes from: tokio's blocking pool is that of a runtime.
    pub(crate) runtime: Option<Handle>,
    pub(crate) kind: JobKind,
}

/// What is run: only closures are under the limit of the queue.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum JobKind {
    Closure,
    /// One poll of a future that was taken in.
    Poll,
}

/// What to do where the queue is full.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum WhenFull {
    Wait,
    Refuse,
}

/// How many run and wait at one moment.
pub(crate) struct Load {
    pub(crate) running: usize,
    pub(crate) queued: usize,
    /// For a place in the queue.
    pub(super) waiting: usize,
}

impl Queue {
    pub(crate) fn new(
        limit: usize,
        queue: Option<usize>,
        backend: Backend,
        counts: &'static LaneCounters,
    ) -> Arc<Self> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Relaxed),
            limit,
            counts,
            backend,
            places: queue.unwrap_or(usize::MAX),
            cancelled: Arc::default(),
            state: ModelledLock::default(),
            drained: Notify::new(),
        })
    }

    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(&self.counts.name)
    }

    pub(crate) fn load(&self) -> Load {
        let state = self.lock();
        let waiting = state.closures.saturating_sub(self.places);
        Load {
            running: state.running,
            queued: state.queue.len() - waiting,
            waiting,
        }
    }

    /// Whether its threads are those of the runtime, which is entered there.
    pub(super) fn is_of_the_runtime(&self) -> bool {
        self.backend.needs_runtime()
    }

    /// The runtime around the caller; an error if the lane cannot do without.
    pub(super) fn runtime(&self) -> Result<Option<Handle>, OffloadError> {
        let runtime = Handle::try_current().ok();
        if runtime.is_none() && self.backend.needs_runtime() {
            return Err(OffloadError::NoRuntime { lane: self.name() });
        }
        Ok(runtime)
    }

    /// The error of something that is not taken in.
    fn refused(&self, error: impl FnOnce(Arc<str>) -> OffloadError) -> OffloadError {
        self.counts.rejected.fetch_add(1, Relaxed);
        error(self.name())
    }

    fn closed(&self) -> OffloadError {
        self.refused(|lane| OffloadError::Closed { lane })
    }

    /// Starts a closure, or queues it if there is no place. Dropping the ticket withdraws it.
    pub(crate) fn submit(
        self: &Arc<Self>,
        job: Job,
        when_full: WhenFull,
    ) -> Result<Ticket, OffloadError> {
        let state = self.lock();
        let is_full = state.running >= self.limit && state.closures >= self.places;
        if state.is_closed {
            drop(state);
            Err(self.closed())
        } else if is_full && when_full == WhenFull::Refuse {
            drop(state);
            Err(self.refused(|lane| OffloadError::QueueFull { lane }))
        } else {
            Ok(self.enqueue(state, job))
        }
    }

    /// A poll of a future that was taken in: never refused, or the future would not wake up.
    pub(super) fn submit_poll(self: &Arc<Self>, job: Job) {
        self.enqueue(self.lock(), job).used();
    }

    fn enqueue(self: &Arc<Self>, mut state: ModelledGuard<'_, State>, job: Job) -> Ticket {
        if state.queue.is_empty() && state.running < self.limit {
            state.running += 1; // model: place-count
            drop(state);
            self.start(job);
            return Ticket { queued: None };
        }
        let ticket = state.push(job);
        self.counts.queued.fetch_add(1, Relaxed);
        drop(state);
        self.fill();
        Ticket {
            queued: Some((Arc::clone(self), ticket)),
        }
    }

    /// Runs a job in a place that was taken for it.
    fn start(self: &Arc<Self>, job: Job) {
        let runtime = job.runtime.clone();
        let place = Place {
            queue: Arc::clone(self),
        };
        // Two hold it, and one takes it out. So a runtime that has shut down, and drops its half at
        // once (under a lock of its own in some versions), drops no job and no place with it; and if
        // the system starts no thread, where tokio panics and keeps its half, we have ours. In both
        // cases the future is told, and the place is free again.
        let handed = Arc::new(ModelledLock::new(Some((place, job))));
        let theirs = Arc::clone(&handed);
        let work = move || {
            if let Some((place, job)) = take(&theirs) {
                place.work_off(job);
            }
        };
        if catch_panic(|| self.backend.spawn(runtime.as_ref(), work)).is_none() {
            catch_panic(|| drop(take(&handed)));
        }
    }

    /// Starts jobs while there are places.
    ///
    /// With a runtime that has shut down the job is dropped at once, and with it the place, whose
    /// destructor comes back here on the same thread. The loop further up the stack then goes on, so
    /// that a long queue makes no deep stack.
    #[allow(
        clippy::missing_const_for_thread_local,
        reason = "the models' macro knows no const"
    )]
    fn fill(self: &Arc<Self>) {
        thread_local! {
            static FILLING: RefCell<Vec<u64>> = RefCell::new(Vec::new());
        }
        // A thread that ends may have lost it already.
        let is_filling = FILLING.try_with(|filling| filling.borrow().contains(&self.id));
        if is_filling.unwrap_or(false) {
            return;
        }
        let _ = FILLING.try_with(|filling| filling.borrow_mut().push(self.id));
        while let Some(job) = self.take_place() {
            self.start(job);
        }
        let _ = FILLING.try_with(|filling| filling.borrow_mut().retain(|id| *id != self.id));
    }

    /// The next job, if there is a place for it, which is taken.
    fn take_place(&self) -> Option<Job> {
        let mut state = self.lock();
        let is_full = state.running >= self.limit; // model: place-limit
        if is_full {
            return None;
        }
        let (first, _) = state.first()?;
        let job = state.remove(first)?;
        state.running += 1;
        self.counts.queued.fetch_sub(1, Relaxed);
        Some(job)
    }

    /// Takes a future in, which is to be polled here.
    pub(super) fn take_in(self: &Arc<Self>) -> Result<TakenIn, OffloadError> {
        let mut state = self.lock();
        if state.is_closed {
            drop(state);
            return Err(self.closed());
        }
        state.futures += 1;
        drop(state);
        Ok(TakenIn {
            queue: Arc::clone(self),
        })
    }

    /// Takes nothing in any more. Who waits for a place in the queue is told so.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        let closures = state
            .queue
            .iter()
            .filter(|(_, job)| job.kind == JobKind::Closure);
        let waiting: Vec<_> = closures
            .skip(self.places)
            .map(|(ticket, _)| *ticket)
            .collect();
        let refused: Vec<_> = waiting
            .into_iter()
            .filter_map(|ticket| state.remove(ticket))
            .collect();
        drop(state);
        self.counts
            .rejected
            .fetch_add(refused.len() as u64, Relaxed);
        self.throw_away(refused);
    }

    /// Waits until everything that was taken in has ended.
    pub(crate) async fn drained(&self) {
        // In the child of a fork no thread works off what the parent queued.
        while !sys::is_forked() {
            let mut drained = pin!(self.drained.notified());
            drained.as_mut().enable();
            if self.lock().is_drained() {
                return;
            }
            drained.await;
        }
    }

    /// Something has ended. Who waits is woken outside of the lock: a waker may offload.
    // A model skips the look at the state for one caller.
    #[cfg_attr(shotclock_loom, track_caller)]
    fn settle(&self, state: ModelledGuard<'_, State>) {
        let is_over = state.is_closed && state.is_drained();
        drop(state);
        // Telling takes a lock of tokio's.
        if is_over && !sys::is_forked() {
            self.drained.notify_waiters();
        }
    }

    /// Takes everything out of the queue, and flips the tokens of what runs.
    pub(super) fn cancel_all(self: &Arc<Self>) {
        let mut state = self.lock();
        self.cancelled.fetch_add(1, Relaxed);
        state.closures = 0;
        let queued = std::mem::take(&mut state.queue);
        drop(state);
        self.throw_away(queued.into_values().collect());
    }

    fn throw_away(&self, jobs: Vec<Job>) {
        self.counts.queued.fetch_sub(jobs.len() as u64, Relaxed);
        for job in jobs {
            // What a closure owns may panic when it is dropped.
            catch_panic(|| drop(job));
        }
        self.settle(self.lock());
    }

    /// A token that is flipped when everything is cancelled, and by whom else it is given to.
    pub(super) fn token(&self) -> Cancel {
        Cancel::new(&self.cancelled)
    }

    /// How often everything was cancelled.
    pub(super) fn cancellations(&self) -> u64 {
        self.cancelled.load(Relaxed)
    }

    /// Why something was thrown away before it ran that was sent after so many cancellations.
    pub(super) fn gone(&self, cancellations: u64) -> OffloadError {
        let lane = self.name();
        if self.cancellations() == cancellations {
            OffloadError::Closed { lane }
        } else {
            OffloadError::Cancelled { lane }
        }
    }

    /// Nothing panics while it holds this lock; if it ever did, the state would still be whole.
    fn lock(&self) -> ModelledGuard<'_, State> {
        self.state.lock()
    }
}

fn take<T>(handed: &ModelledLock<Option<T>>) -> Option<T> {
    handed.lock().take()
}

/// Withdraws its job when it is dropped, if the job is still queued.
pub(crate) struct Ticket {
    /// `None` if it was never queued.
    queued: Option<(Arc<Queue>, u64)>,
}

impl Ticket {
    /// The job is known to have left the queue, or is to stay there.
    pub(crate) fn used(mut self) {
        self.queued = None;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some((queue, ticket)) = self.queued.take() else {
            return;
        };
        let mut state = queue.lock();
        let withdrawn = state.remove(ticket);
        queue.settle(state); // model: withdrawn-settle
        let count = u64::from(withdrawn.is_some());
        queue.counts.queued.fetch_sub(count, Relaxed);
        // Last, and outside of the lock: what the closure owns is dropped here, and may panic.
        drop(withdrawn);
    }
}

/// A future that was taken in, until it is gone.
pub(super) struct TakenIn {
    queue: Arc<Queue>,
}

impl Drop for TakenIn {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        // Of a stand-in there is none to take away: see `Lock`.
        state.futures = state.futures.saturating_sub(1);
        self.queue.settle(state);
    }
}

/// One of the lane's places. Dropping it gives it back.
struct Place {
    queue: Arc<Queue>,
}

impl Place {
    /// Runs the job, and then for a while those that wait for the same runtime.
    fn work_off(self, first: Job) {
        let mut turn = None;
        let mut next = Some((self, first));
        while let Some((place, job)) = next.take() {
            let Job { work, runtime, .. } = job;
            let mut held = Some(place);
            let mut done = |ran: Ran| {
                let is_over = ran.to - *turn.get_or_insert(ran.from) >= TURN;
                match held.take() {
                    Some(place) if !is_over => next = place.pass_on(runtime.as_ref()),
                    held => drop(held),
                }
            };
            // What it logs with is the caller's, and may panic; the next job is not to suffer.
            catch_panic(|| work(&mut done));
        }
    }

    /// Keeps the place for the next job, if that may run here; else gives it back.
    ///
    /// A thread of one runtime must not work for another, whose work would keep the first one from
    /// shutting down.
    fn pass_on(self, runtime: Option<&Handle>) -> Option<(Self, Job)> {
        let mut state = self.queue.lock();
        let (first, next) = state.first()?;
        let is_ours = !self.queue.backend.needs_runtime()
            || next.runtime.as_ref().map(Handle::id) == runtime.map(Handle::id);
        let job = is_ours.then(|| state.remove(first));
        drop(state);
        let job = job??;
        self.queue.counts.queued.fetch_sub(1, Relaxed);
        Some((self, job))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.running = state.running.saturating_sub(1);
        let is_idle = state.queue.is_empty(); // model: place-fill
        self.queue.settle(state); // model: place-settle
        if !is_idle {
            self.queue.fill();
        }
    }
}

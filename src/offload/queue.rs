//! The queue of a lane, and its permits.
//!
//! A thread that has finished a job takes the next one from the queue itself, so busy lanes wake no other thread. After
//! [`MAX_TURN`] it returns its permit, because other code may use the pool too, or the pool may shut down.
//!
//! # Invariants
//!
//! 1. `running` counts the [`Permit`]s that exist. There are at most `limit`.
//! 2. A job is queued only if there is no free permit, or if other jobs wait. If a permit becomes free while jobs wait, it
//!    takes the next job, or [`Queue::fill`] runs. So no job waits beside a free permit.
//! 3. A job is in the queue, or has a permit, or is gone. Each job runs at most once.
//! 4. All waiting jobs have one order, that of their arrival. The first `capacity` closures are in the queue. The callers of
//!    the others wait for room in it.

use std::cell::RefCell;
use std::collections::VecDeque;
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

/// The longest time in which a thread runs one job after the other, so that other users of the pool get threads.
const MAX_TURN: Duration = Duration::from_millis(5);

/// The queue of one lane and its permits.
pub(crate) struct Queue {
    pub(super) id: u64,
    pub(super) limit: usize,
    pub(super) counts: &'static LaneCounters,
    backend: Backend,
    /// The largest number of queued closures.
    capacity: usize,
    /// The number of calls of [`cancel_all`](Self::cancel_all).
    cancelled: Arc<AtomicU64>,
    state: ModelledLock<QueueState>,
    drained: Notify,
}

#[derive(Default)]
struct QueueState {
    running: usize,
    tickets: u64,
    /// Tickets and their jobs, the oldest first, so in the order of the tickets. Each can be withdrawn.
    queue: VecDeque<(u64, Job)>,
    /// The number of closures among them. The rest are polls of futures.
    closures: usize,
    /// The accepted futures that have not ended.
    futures: usize,
    is_closed: bool,
}

impl QueueState {
    fn is_drained(&self) -> bool {
        self.running == 0 && self.queue.is_empty() && self.futures == 0
    }

    fn push(&mut self, job: Job) -> u64 {
        self.tickets += 1;
        self.closures += usize::from(job.kind == JobKind::Closure);
        self.queue.push_back((self.tickets, job));
        self.tickets
    }

    fn remove(&mut self, ticket: u64) -> Option<Job> {
        let found = self
            .queue
            .binary_search_by_key(&ticket, |(ticket, _)| *ticket);
        let (_, job) = self.queue.remove(found.ok()?)?;
        self.closures -= usize::from(job.kind == JobKind::Closure);
        Some(job)
    }

    fn first(&self) -> Option<(u64, &Job)> {
        let (ticket, job) = self.queue.front()?;
        Some((*ticket, job))
    }
}

/// Runs a job. It calls its argument at the end of the run, before it sends the result.
pub(crate) type Work = Box<dyn FnOnce(&mut dyn FnMut(RunSpan)) + Send>;

/// The begin and the end of a run, from the readings for the metrics.
#[derive(Clone, Copy)]
pub(crate) struct RunSpan {
    pub(crate) from: Instant,
    pub(crate) to: Instant,
}

/// A closure or a poll to run.
pub(crate) struct Job {
    pub(crate) work: Work,
    /// The caller's runtime, whose blocking pool may run the job.
    pub(crate) runtime: Option<Handle>,
    pub(crate) kind: JobKind,
}

/// The kind of a job. Only closures count against the capacity of the queue.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum JobKind {
    Closure,
    /// One poll of an accepted future.
    Poll,
}

/// What to do if the queue is full.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum WhenFull {
    Wait,
    Refuse,
}

/// The load of a queue at one time.
pub(crate) struct Load {
    pub(crate) running: usize,
    pub(crate) queued: usize,
    /// Callers that wait for room in the queue.
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
            capacity: queue.unwrap_or(usize::MAX),
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
        let waiting = state.closures.saturating_sub(self.capacity);
        Load {
            running: state.running,
            queued: state.queue.len() - waiting,
            waiting,
        }
    }

    /// Returns whether its threads are those of the runtime, which they have entered already.
    pub(super) fn needs_runtime(&self) -> bool {
        self.backend.needs_runtime()
    }

    /// Returns the caller's runtime. An error if there is none and the lane needs one.
    pub(super) fn runtime(&self) -> Result<Option<Handle>, OffloadError> {
        let runtime = Handle::try_current().ok();
        if runtime.is_none() && self.backend.needs_runtime() {
            return Err(OffloadError::NoRuntime { lane: self.name() });
        }
        Ok(runtime)
    }

    /// Counts a rejected job, and returns its error.
    fn refused(&self, error: impl FnOnce(Arc<str>) -> OffloadError) -> OffloadError {
        self.counts.rejected.fetch_add(1, Relaxed);
        error(self.name())
    }

    fn closed(&self) -> OffloadError {
        self.refused(|lane| OffloadError::Closed { lane })
    }

    /// Starts a closure, or queues it if there is no permit. The ticket withdraws it on drop.
    pub(crate) fn submit(
        self: &Arc<Self>,
        job: Job,
        when_full: WhenFull,
    ) -> Result<Ticket, OffloadError> {
        let state = self.lock();
        let is_full = state.running >= self.limit && state.closures >= self.capacity;
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

    /// Queues a poll of an accepted future. It is never refused, because the future would not wake up again.
    pub(super) fn submit_poll(self: &Arc<Self>, job: Job) {
        self.enqueue(self.lock(), job).disarm();
    }

    fn enqueue(self: &Arc<Self>, mut state: ModelledGuard<'_, QueueState>, job: Job) -> Ticket {
        if state.queue.is_empty() && state.running < self.limit {
            state.running += 1; // model: permit-count
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

    /// Runs a job with a permit that was taken for it.
    fn start(self: &Arc<Self>, job: Job) {
        let runtime = job.runtime.clone();
        let permit = Permit {
            queue: Arc::clone(self),
        };
        // Two owners share the job, and one takes it out. A runtime that has shut down drops its share at once, in some
        // versions under a lock of its own. That drops neither job nor permit. If the system starts no thread, tokio panics
        // and keeps its share, and this function still has the other one. In both cases the caller gets an error, and the
        // permit is free again.
        let handed = Arc::new(ModelledLock::new(Some((permit, job))));
        let theirs = Arc::clone(&handed);
        let work = move || {
            if let Some((permit, job)) = take(&theirs) {
                permit.run_jobs(job);
            }
        };
        if catch_panic(|| self.backend.spawn(runtime.as_ref(), work)).is_none() {
            catch_panic(|| drop(take(&handed)));
        }
    }

    /// Starts jobs while there are permits.
    ///
    /// A runtime that has shut down drops the job at once, and the permit with it. The permit's destructor calls this
    /// function again, on the same thread. Then the outer loop continues, so a long queue makes no deep stack.
    #[allow(
        clippy::missing_const_for_thread_local,
        reason = "the models' macro knows no const"
    )]
    fn fill(self: &Arc<Self>) {
        thread_local! {
            static FILLING: RefCell<Vec<u64>> = RefCell::new(Vec::new());
        }
        // A thread that ends may have no thread-local any more.
        let is_filling = FILLING.try_with(|filling| filling.borrow().contains(&self.id));
        if is_filling.unwrap_or(false) {
            return;
        }
        let _ = FILLING.try_with(|filling| filling.borrow_mut().push(self.id));
        while let Some(job) = self.next_job() {
            self.start(job);
        }
        let _ = FILLING.try_with(|filling| filling.borrow_mut().retain(|id| *id != self.id));
    }

    /// Takes the next job, and a permit for it.
    fn next_job(&self) -> Option<Job> {
        let mut state = self.lock();
        let is_full = state.running >= self.limit; // model: permit-limit
        if is_full {
            return None;
        }
        let (first, _) = state.first()?;
        let job = state.remove(first)?;
        state.running += 1;
        self.counts.queued.fetch_sub(1, Relaxed);
        Some(job)
    }

    /// Accepts a future, whose polls will be jobs here.
    pub(super) fn accept_future(self: &Arc<Self>) -> Result<FutureToken, OffloadError> {
        let mut state = self.lock();
        if state.is_closed {
            drop(state);
            return Err(self.closed());
        }
        state.futures += 1;
        drop(state);
        Ok(FutureToken {
            queue: Arc::clone(self),
        })
    }

    /// Closes the queue for new jobs. Refuses the callers that wait for room.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        let closures = state
            .queue
            .iter()
            .filter(|(_, job)| job.kind == JobKind::Closure);
        let waiting: Vec<_> = closures
            .skip(self.capacity)
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
        self.discard(refused);
    }

    /// Waits until all accepted jobs and futures have ended.
    pub(crate) async fn drained(&self) {
        // In the child of a fork, no thread runs the jobs that the parent queued.
        while !sys::is_forked() {
            let mut drained = pin!(self.drained.notified());
            drained.as_mut().enable();
            if self.lock().is_drained() {
                return;
            }
            drained.await;
        }
    }

    /// Wakes the callers of [`drained`](Self::drained) if the queue is. Outside the lock, because a waker may offload.
    // A model skips the look at the state for one caller.
    #[cfg_attr(shotclock_loom, track_caller)]
    fn notify_if_drained(&self, state: ModelledGuard<'_, QueueState>) {
        let is_over = state.is_closed && state.is_drained();
        drop(state);
        // `notify_waiters` takes a lock of tokio's.
        if is_over && !sys::is_forked() {
            self.drained.notify_waiters();
        }
    }

    /// Discards all queued jobs, and cancels the tokens of the running ones.
    pub(super) fn cancel_all(self: &Arc<Self>) {
        let mut state = self.lock();
        self.cancelled.fetch_add(1, Relaxed);
        state.closures = 0;
        let queued = std::mem::take(&mut state.queue);
        drop(state);
        self.discard(queued.into_iter().map(|(_, job)| job).collect());
    }

    fn discard(&self, jobs: Vec<Job>) {
        self.counts.queued.fetch_sub(jobs.len() as u64, Relaxed);
        for job in jobs {
            // The destructor of a closure may panic.
            catch_panic(|| drop(job));
        }
        self.notify_if_drained(self.lock());
    }

    /// Makes a token that [`cancel_all`](Self::cancel_all) cancels too.
    pub(super) fn token(&self) -> Cancel {
        Cancel::new(&self.cancelled)
    }

    /// Returns the number of calls of [`cancel_all`](Self::cancel_all).
    pub(super) fn cancellations(&self) -> u64 {
        self.cancelled.load(Relaxed)
    }

    /// Returns the error of a discarded job that was sent after `cancellations` calls of [`cancel_all`](Self::cancel_all).
    pub(super) fn discarded_error(&self, cancellations: u64) -> OffloadError {
        let lane = self.name();
        if self.cancellations() == cancellations {
            OffloadError::Closed { lane }
        } else {
            OffloadError::Cancelled { lane }
        }
    }

    /// Locks the state. No code panics under this lock, and the state would be consistent even then.
    fn lock(&self) -> ModelledGuard<'_, QueueState> {
        self.state.lock()
    }
}

fn take<T>(handed: &ModelledLock<Option<T>>) -> Option<T> {
    handed.lock().take()
}

/// Withdraws its job when it is dropped, if the job is still queued.
pub(crate) struct Ticket {
    /// `None` if the job was never queued.
    queued: Option<(Arc<Queue>, u64)>,
}

impl Ticket {
    /// Keeps the destructor from withdrawing the job, because it has left the queue or must stay.
    pub(crate) fn disarm(mut self) {
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
        queue.notify_if_drained(state); // model: withdrawn-notify
        let count = u64::from(withdrawn.is_some());
        queue.counts.queued.fetch_sub(count, Relaxed);
        // Last, and outside the lock, because the closure's destructor may panic.
        drop(withdrawn);
    }
}

/// Counts an accepted future until it is dropped.
pub(super) struct FutureToken {
    queue: Arc<Queue>,
}

impl Drop for FutureToken {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        // In the child of a fork, the state may be a default one without this future: see `Lock`.
        state.futures = state.futures.saturating_sub(1);
        self.queue.notify_if_drained(state);
    }
}

/// The right to run jobs. The lane has `limit` of them. A drop returns it.
struct Permit {
    queue: Arc<Queue>,
}

impl Permit {
    /// Runs a job, and then for up to [`MAX_TURN`] the next ones of the same runtime.
    fn run_jobs(self, first: Job) {
        let mut turn = None;
        let mut next = Some((self, first));
        while let Some((permit, job)) = next.take() {
            let Job { work, runtime, .. } = job;
            let mut held = Some(permit);
            let mut done = |ran: RunSpan| {
                let is_over = ran.to - *turn.get_or_insert(ran.from) >= MAX_TURN;
                match held.take() {
                    Some(permit) if !is_over => next = permit.next_for(runtime.as_ref()),
                    held => drop(held),
                }
            };
            // The caller's subscriber may panic, and the next job must still run.
            catch_panic(|| work(&mut done));
        }
    }

    /// Keeps the permit for the next job, if that may run on this thread. Otherwise returns it.
    ///
    /// A thread of one runtime must not run jobs of another, because they would delay the shutdown of the first one.
    fn next_for(self, runtime: Option<&Handle>) -> Option<(Self, Job)> {
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

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.running = state.running.saturating_sub(1);
        let is_idle = state.queue.is_empty(); // model: permit-fill
        self.queue.notify_if_drained(state); // model: permit-notify
        if !is_idle {
            self.queue.fill();
        }
    }
}

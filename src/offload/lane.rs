//! A bounded place to run closures, and its figures.
//!
//! A thread of the pool that has done its closure takes the next one from the queue itself: with
//! many in flight nothing is handed from thread to thread.
//!
//! # Invariants
//!
//! 1. `running` counts the [`Place`]s that exist; there are never more than `limit`.
//! 2. A job is queued only if there is no place or others wait; whenever a place becomes free while
//!    jobs wait, the place takes the next or [`Lane::fill`] runs. So none waits beside a free place.
//! 3. A job is in the queue, or in the hands of a place, or gone; each is run at most once.

use std::any::Any;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::collections::btree_map::OccupiedEntry;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;
use std::time::Instant;

use tokio::runtime::Handle;

use super::error::{OffloadError, PanicPayload};
use crate::contain::contain;
use crate::publish;
use crate::samples::Series;
use crate::watch::{LaneCounts, enroll_lane};

/// So many closures at once, the others in the order in which they came.
pub(super) struct Lane {
    limit: usize,
    state: Mutex<State>,
    counts: Arc<LaneCounts>,
}

#[derive(Default)]
struct State {
    running: usize,
    tickets: u64,
    /// By ticket, so that the first is the oldest, and any can be withdrawn.
    queue: BTreeMap<u64, Job>,
}

/// Calls its argument when the closure is done, before it tells anybody.
type Work = Box<dyn FnOnce(&mut dyn FnMut()) + Send>;

/// A closure, and the runtime on whose pool it is to run.
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) runtime: Handle,
}

static CPU: LazyLock<Lane> = LazyLock::new(|| Lane::new("cpu", cores()));

/// The default lane, for work that computes.
pub(super) fn cpu() -> &'static Lane {
    &CPU
}

fn cores() -> usize {
    available_parallelism().map_or(1, std::num::NonZero::get)
}

impl Lane {
    fn new(name: &str, limit: usize) -> Self {
        // Without its thread the lane still works; only its figures are not seen.
        let _ = publish::start();
        Self {
            limit,
            state: Mutex::default(),
            counts: enroll_lane(name),
        }
    }

    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(&self.counts.name)
    }

    /// The moment from which the wait is counted.
    pub(super) fn asked(&self) -> Asked {
        Asked {
            counts: Arc::clone(&self.counts),
            at: Instant::now(),
        }
    }

    /// Starts a job, or queues it if there is no place. Dropping the ticket withdraws it.
    pub(super) fn submit(&'static self, job: Job) -> Ticket {
        let mut state = self.lock();
        if state.queue.is_empty() && state.running < self.limit {
            state.running += 1;
            drop(state);
            self.start(job);
            return Ticket { queued: None };
        }
        state.tickets += 1;
        let ticket = state.tickets;
        state.queue.insert(ticket, job);
        self.tell_queued(&state);
        drop(state);
        self.fill();
        Ticket {
            queued: Some((self, ticket)),
        }
    }

    /// Runs a job on the pool of its runtime, in a place that was taken for it.
    fn start(&'static self, job: Job) {
        let runtime = job.runtime.clone();
        // Two hold it, and one takes it out. So a runtime that has shut down, and drops its half at
        // once (under a lock of its own in some versions), drops no job and no place with it; and if
        // the system starts no thread, where tokio panics and keeps its half, we have ours. In both
        // cases the future is told, and the place is free again.
        let handed = Arc::new(Mutex::new(Some((Place { lane: self }, job))));
        let theirs = Arc::clone(&handed);
        let work = move || {
            if let Some((place, job)) = take(&theirs) {
                place.work_off(job);
            }
        };
        if contain(|| runtime.spawn_blocking(work)).is_none() {
            drop(take(&handed));
        }
    }

    /// Starts jobs while there are places.
    ///
    /// With a runtime that has shut down the job is dropped at once, and with it the place, whose
    /// destructor comes back here on the same thread. The loop further up the stack then goes on, so that a
    /// long queue makes no deep stack.
    fn fill(&'static self) {
        thread_local! {
            static FILLING: Cell<bool> = const { Cell::new(false) };
        }
        if FILLING.replace(true) {
            return;
        }
        while let Some(job) = self.take_place() {
            self.start(job);
        }
        FILLING.set(false);
    }

    /// The next job, if there is a place for it, which is taken.
    fn take_place(&self) -> Option<Job> {
        let mut state = self.lock();
        if state.running >= self.limit {
            return None;
        }
        let (_, job) = state.queue.pop_first()?;
        state.running += 1;
        self.tell_queued(&state);
        Some(job)
    }

    fn tell_queued(&self, state: &State) {
        self.counts.queued.store(state.queue.len() as u64, Relaxed);
    }

    /// Nothing panics while it holds this lock; if it ever did, the state would still be whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take<T>(handed: &Mutex<Option<T>>) -> Option<T> {
    handed.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Withdraws its job when it is dropped, if the job is still queued.
pub(super) struct Ticket {
    /// `None` if it was never queued.
    queued: Option<(&'static Lane, u64)>,
}

impl Ticket {
    /// The job is known to have left the queue.
    pub(super) fn used(mut self) {
        self.queued = None;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some((lane, ticket)) = self.queued else {
            return;
        };
        let withdrawn = {
            let mut state = lane.lock();
            let withdrawn = state.queue.remove(&ticket);
            lane.tell_queued(&state);
            withdrawn
        };
        // Outside of the lock: what the closure owns is dropped here.
        drop(withdrawn);
    }
}

/// One of the lane's places. Dropping it gives it back.
struct Place {
    lane: &'static Lane,
}

impl Place {
    /// Runs the job, and then those that wait for the same runtime.
    fn work_off(self, first: Job) {
        let mut next = Some((self, first));
        while let Some((place, job)) = next.take() {
            let Job { work, runtime } = job;
            let mut place = Some(place);
            let mut done = || next = place.take().and_then(|place| place.pass_on(&runtime));
            // What it logs with is the caller's, and may panic; the next job is not to suffer.
            contain(|| work(&mut done));
        }
    }

    /// Keeps the place for the next job, if that belongs to `runtime`; else gives it back.
    ///
    /// A thread of one runtime must not work for another, whose work would keep the first one from
    /// shutting down.
    fn pass_on(self, runtime: &Handle) -> Option<(Self, Job)> {
        let mut state = self.lane.lock();
        let next = state.queue.first_entry();
        let next = next.filter(|next| next.get().runtime.id() == runtime.id());
        let job = next.map(OccupiedEntry::remove);
        self.lane.tell_queued(&state);
        drop(state);
        job.map(|job| (self, job))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let idle = {
            let mut state = self.lane.lock();
            state.running -= 1;
            state.queue.is_empty()
        };
        if !idle {
            self.lane.fill();
        }
    }
}

/// A closure that waits.
pub(super) struct Asked {
    counts: Arc<LaneCounts>,
    at: Instant,
}

/// A closure that runs, until it is dropped.
pub(super) struct Running {
    counts: Arc<LaneCounts>,
    since: Instant,
}

impl Asked {
    /// The closure begins, on this thread.
    pub(super) fn run(self) -> Running {
        let Self { counts, at } = self;
        let since = Instant::now();
        sample(&counts.wait, at, since);
        counts.in_flight.fetch_add(1, Relaxed);
        Running { counts, since }
    }
}

impl Running {
    /// The closure panicked.
    pub(super) fn panicked(&self, payload: Box<dyn Any + Send>) -> OffloadError {
        self.counts.panics.fetch_add(1, Relaxed);
        OffloadError::Panicked(PanicPayload::new(Arc::clone(&self.counts.name), payload))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        sample(&self.counts.run, self.since, Instant::now());
        self.counts.in_flight.fetch_sub(1, Relaxed);
    }
}

fn sample(series: &Arc<Series>, from: Instant, to: Instant) {
    let nanos = to.saturating_duration_since(from).as_nanos();
    publish::sample(series, u64::try_from(nanos).unwrap_or(u64::MAX));
}

//! The workers of one runtime: what the runtime tells of them, and which threads they are.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor, RuntimeMetrics};

use crate::slot::Seat;

/// See the module.
pub(crate) struct Workers {
    handle: Handle,
    metrics: RuntimeMetrics,
    /// The number of the seat of each, or 0 while it is not known.
    seats: Box<[AtomicU64]>,
    /// How many tasks and hooks of ours each has run.
    own_tasks: Box<[AtomicU64]>,
}

/// What a worker's counters say. While they stand still the worker has not returned to its driver. That
/// says nothing of the number of its polls: tokio stores them once in `event_interval` ticks (61 unless the
/// program sets it), and one tick may poll up to three tasks more from the LIFO slot.
///
/// Source: `Core::maintenance`, `Stats::submit` and `MAX_LIFO_POLLS_PER_TICK` of tokio 1.54.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Reading {
    parks_and_unparks: u64,
    busy: Duration,
}

impl Reading {
    /// A worker counts when it parks and again when it goes on.
    pub(crate) fn is_parked(self) -> bool {
        self.parks_and_unparks % 2 == 1
    }
}

impl Workers {
    pub(super) fn of(handle: &Handle) -> Self {
        let metrics = handle.metrics();
        let zeros = || {
            let workers = 0..metrics.num_workers();
            workers.map(|_| AtomicU64::new(0)).collect()
        };
        Self {
            seats: zeros(),
            own_tasks: zeros(),
            metrics,
            handle: handle.clone(),
        }
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(crate) fn count(&self) -> usize {
        self.seats.len()
    }

    pub(crate) fn read(&self, worker: usize) -> Reading {
        Reading {
            parks_and_unparks: self.metrics.worker_park_unpark_count(worker),
            busy: self.metrics.worker_total_busy_duration(worker),
        }
    }

    pub(crate) fn parked(&self) -> usize {
        let workers = 0..self.count();
        workers
            .filter(|worker| self.read(*worker).is_parked())
            .count()
    }

    /// How many tasks wait in the queue that all workers share.
    pub(crate) fn queued(&self) -> usize {
        self.metrics.global_queue_depth()
    }

    /// Whether its one worker is whichever thread is in `block_on`, or none.
    pub(crate) fn is_current_thread(&self) -> bool {
        self.handle.runtime_flavor() == RuntimeFlavor::CurrentThread
    }

    /// Says that the calling thread is the worker that it says it is.
    pub(crate) fn sit_down(&self) {
        let worker = tokio::runtime::worker_index();
        let (Some(worker), Some(seat)) = (worker, Seat::here()) else {
            return;
        };
        let (Some(mine), Some(own_tasks)) = (self.seats.get(worker), self.own_tasks.get(worker))
        else {
            return;
        };
        own_tasks.fetch_add(1, Relaxed);
        if mine.load(Relaxed) == seat.number() {
            return;
        }
        // A thread that hands its worker to another one may be another worker later.
        for other in &self.seats {
            let _ = other.compare_exchange(seat.number(), 0, Relaxed, Relaxed);
        }
        mine.store(seat.number(), Relaxed);
    }

    /// Says that a worker is another thread than was known.
    pub(crate) fn vacate(&self, worker: usize) {
        if let Some(seat) = self.seats.get(worker) {
            seat.store(0, Relaxed);
        }
    }

    /// The thread that is a worker, as far as is known.
    pub(crate) fn seat(&self, worker: usize) -> Option<Seat> {
        Seat::from_number(self.seats.get(worker)?.load(Relaxed))
    }

    /// How many tasks and hooks of ours a worker has run: if that grows, it is not in one poll.
    pub(crate) fn own_tasks(&self, worker: usize) -> u64 {
        let own_tasks = self.own_tasks.get(worker);
        own_tasks.map_or(0, |own_tasks| own_tasks.load(Relaxed))
    }

    /// Whether there is a worker whose thread is not known, or is no more.
    pub(crate) fn is_any_unknown(&self) -> bool {
        let mut workers = 0..self.count();
        workers.any(|worker| self.seat(worker).and_then(Seat::slot).is_none())
    }

    /// Which of the workers the thread of a slot is.
    pub(crate) fn of_slot(&self, slot: usize) -> Option<usize> {
        let mut workers = 0..self.count();
        workers.find(|worker| self.seat(*worker).is_some_and(|seat| seat.index() == slot))
    }

    /// Whether the thread of a slot is one of them.
    pub(crate) fn has(&self, slot: usize) -> bool {
        self.of_slot(slot).is_some()
    }
}

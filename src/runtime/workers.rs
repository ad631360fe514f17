//! Reads tokio's counters of the workers of one runtime, and maps each worker to its thread.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor, RuntimeMetrics};

use crate::slot::ThreadKey;

/// The workers of one runtime.
pub(crate) struct Workers {
    handle: Handle,
    metrics: RuntimeMetrics,
    /// The thread key of each worker as a number, 0 while its thread is unknown.
    thread_keys: Box<[AtomicU64]>,
    /// The number of our probes and hooks that each worker ran.
    probes_run: Box<[AtomicU64]>,
}

/// A reading of a worker's counters. While they do not change, the worker has not returned to its driver.
///
/// The counters do not say how many polls the worker made: tokio stores them once in `event_interval` ticks
/// (61 by default), and one tick may poll up to three more tasks from the LIFO slot.
///
/// Source: `Core::maintenance`, `Stats::submit` and `MAX_LIFO_POLLS_PER_TICK` of tokio 1.54.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct WorkerReading {
    parks_and_unparks: u64,
    busy: Duration,
}

impl WorkerReading {
    /// Returns whether the worker is parked: tokio counts when a worker parks, and again when it unparks.
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
            thread_keys: zeros(),
            probes_run: zeros(),
            metrics,
            handle: handle.clone(),
        }
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(crate) fn count(&self) -> usize {
        self.thread_keys.len()
    }

    pub(crate) fn read(&self, worker: usize) -> WorkerReading {
        WorkerReading {
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

    /// Returns the number of tasks in the queue that all workers share.
    pub(crate) fn queued(&self) -> usize {
        self.metrics.global_queue_depth()
    }

    /// Returns whether the runtime is of the current-thread flavor: its worker is the thread in `block_on`, if any.
    pub(crate) fn is_current_thread(&self) -> bool {
        self.handle.runtime_flavor() == RuntimeFlavor::CurrentThread
    }

    /// Records the calling thread as the worker that tokio says it is.
    pub(crate) fn bind_current_thread(&self) {
        let worker = tokio::runtime::worker_index();
        let (Some(worker), Some(key)) = (worker, ThreadKey::of_current_thread()) else {
            return;
        };
        let (Some(of_worker), Some(probes_run)) =
            (self.thread_keys.get(worker), self.probes_run.get(worker))
        else {
            return;
        };
        probes_run.fetch_add(1, Relaxed);
        if of_worker.load(Relaxed) == key.number() {
            return;
        }
        // `block_in_place` hands a worker to another thread. The first thread may become another worker later.
        for other in &self.thread_keys {
            let _ = other.compare_exchange(key.number(), 0, Relaxed, Relaxed);
        }
        of_worker.store(key.number(), Relaxed);
    }

    /// Forgets the thread of a worker, because another thread runs the worker now.
    pub(crate) fn unbind(&self, worker: usize) {
        if let Some(key) = self.thread_keys.get(worker) {
            key.store(0, Relaxed);
        }
    }

    /// Returns the thread that runs a worker, if it is known.
    pub(crate) fn thread_key(&self, worker: usize) -> Option<ThreadKey> {
        ThreadKey::from_number(self.thread_keys.get(worker)?.load(Relaxed))
    }

    /// Returns the number of our probes and hooks that a worker ran. If it grows, the worker is not in one poll.
    pub(crate) fn probes_run(&self, worker: usize) -> u64 {
        let probes_run = self.probes_run.get(worker);
        probes_run.map_or(0, |probes_run| probes_run.load(Relaxed))
    }

    /// Returns whether the thread of a worker is unknown or has ended.
    pub(crate) fn is_any_unknown(&self) -> bool {
        let mut workers = 0..self.count();
        workers.any(|worker| self.thread_key(worker).and_then(ThreadKey::slot).is_none())
    }

    /// Returns the worker that the thread of a slot runs.
    pub(crate) fn of_slot(&self, slot: usize) -> Option<usize> {
        let mut workers = 0..self.count();
        workers.find(|worker| {
            self.thread_key(*worker)
                .is_some_and(|key| key.index() == slot)
        })
    }

    /// Returns whether the thread of a slot runs a worker.
    pub(crate) fn has(&self, slot: usize) -> bool {
        self.of_slot(slot).is_some()
    }
}

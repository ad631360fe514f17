//! A lane's queue, its places, and a thread that waits until the lane is drained.
//!
//! Each job has its own thread, unless a place is passed on to it. The model leaves out the pools, the figures, and the
//! inside of tokio's `Notify`.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{self, Ordering::Relaxed};
use std::task::{Context, Poll, Wake};
use std::time::{Duration, Instant};

use loom::sync::atomic::AtomicUsize;

use super::{DEADLOCK, Model};
use crate::counters;
use crate::offload::backend::Backend;
use crate::offload::queue::{Job, JobKind, Queue, RunSpan, Ticket, WhenFull};
use crate::sync::fault::Fault::Skipped;
use crate::sync::thread::{self, Thread};

/// After a job that takes longer than a turn the thread gives its place back.
const LONG: Duration = Duration::from_secs(1);
const SHORT: Duration = Duration::ZERO;

/// A lane with one place, and what its jobs did.
struct ModelLane {
    queue: Arc<Queue>,
    running: AtomicUsize,
    ran: atomic::AtomicUsize,
    dropped: atomic::AtomicUsize,
}

/// Counts the closure that owns it when the closure is dropped.
struct Part(Arc<ModelLane>);

impl Drop for Part {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Relaxed);
    }
}

impl ModelLane {
    fn new(is_shut_down: bool) -> Arc<Self> {
        let counts = counters::lane_counters("model");
        Arc::new(Self {
            queue: Queue::new(1, None, Backend::Model { is_shut_down }, counts),
            running: AtomicUsize::new(0),
            ran: atomic::AtomicUsize::new(0),
            dropped: atomic::AtomicUsize::new(0),
        })
    }

    fn submit(self: &Arc<Self>, took: Duration) -> Ticket {
        let part = Part(Arc::clone(self));
        let work = move |done: &mut dyn FnMut(RunSpan)| {
            let lane = &part.0;
            let running = lane.running.fetch_add(1, Relaxed);
            assert_eq!(running, 0, "more than the limit");
            lane.ran.fetch_add(1, Relaxed);
            lane.running.fetch_sub(1, Relaxed);
            let from = Instant::now();
            drop(part);
            done(RunSpan {
                from,
                to: from + took,
            });
        };
        let job = Job {
            work: Box::new(work),
            runtime: None,
            kind: JobKind::Closure,
        };
        self.queue.submit(job, WhenFull::Wait).unwrap()
    }

    /// Closes the lane, and waits until it is drained.
    fn drain(&self) {
        self.queue.close();
        wait_for(self.queue.drained());
        let load = self.queue.load();
        assert_eq!((load.running, load.queued), (0, 0), "not drained");
    }

    fn ran_and_dropped(&self) -> (usize, usize) {
        (self.ran.load(Relaxed), self.dropped.load(Relaxed))
    }
}

struct Wakes(Thread);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn wait_for(future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    let waker = Arc::new(Wakes(thread::current())).into();
    while future.as_mut().poll(&mut Context::from_waker(&waker)) == Poll::Pending {
        thread::park();
    }
}

/// Two threads submit a job each to a lane with one place.
fn two_at_once(took: Duration, is_shut_down: bool, ran: usize) -> Model {
    Model::new(move || {
        let lane = ModelLane::new(is_shut_down);
        let other = {
            let lane = Arc::clone(&lane);
            loom::thread::spawn(move || lane.submit(took).disarm())
        };
        lane.submit(took).disarm();
        other.join().unwrap();
        lane.drain();
        assert_eq!(lane.ran_and_dropped(), (ran, 2), "ran, and dropped");
    })
}

/// At most as many jobs run as there are permits, and each job runs once. No job stays in the queue beside a free permit. A
/// thread that waits until the lane is drained wakes up.
#[test]
fn job_that_inherits_a_permit_runs_once_and_alone() {
    two_at_once(SHORT, false, 2)
        .holds()
        .fails_with(Skipped, "permit-count", "ran, and dropped")
        .fails_with(Skipped, "permit-limit", "more than the limit")
        .fails_with(Skipped, "permit-notify", DEADLOCK);
}

/// The same where a thread gives its place back although jobs wait.
#[test]
fn job_beside_a_place_that_is_given_back_runs() {
    two_at_once(LONG, false, 2)
        .holds()
        .fails_with(Skipped, "permit-limit", "more than the limit")
        .fails_with(Skipped, "permit-fill", DEADLOCK);
}

/// The same where the runtime has shut down: no job runs, and each is dropped.
#[test]
fn job_of_a_runtime_that_has_shut_down_is_dropped() {
    two_at_once(SHORT, true, 0)
        .holds()
        .fails_with(Skipped, "permit-fill", DEADLOCK);
}

/// A job that is withdrawn runs once or not at all, and is dropped. The withdrawal of the last job drains the lane.
#[test]
fn job_that_is_withdrawn_is_dropped_and_drains_the_lane() {
    let model = Model::new(|| {
        let lane = ModelLane::new(false);
        lane.submit(LONG).disarm();
        let ticket = lane.submit(LONG);
        let other = loom::thread::spawn(move || drop(ticket));
        lane.drain();
        other.join().unwrap();
        let (ran, dropped) = lane.ran_and_dropped();
        assert!(
            (1..=2).contains(&ran) && dropped == 2,
            "{ran} ran, {dropped} dropped"
        );
    });
    model
        .holds()
        .fails_with(Skipped, "withdrawn-notify", DEADLOCK);
}

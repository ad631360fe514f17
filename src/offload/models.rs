//! Models of a lane's queue: its lock, its places, and who waits until it is drained.
//! `RUSTFLAGS="--cfg shotclock_loom" cargo test --release --lib models`
//!
//! Each job has a thread of its own, unless a place is passed on to it. Left out are the pools, the figures,
//! and tokio's `Notify` from inside.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize as Unseen, Ordering::Relaxed};
use std::task::{Context, Poll, Wake};
use std::time::{Duration, Instant};

use loom::sync::atomic::AtomicUsize;

use super::backend::Backend;
use super::queue::{Job, JobKind, Queue, Ran, Ticket, WhenFull};
use crate::counters;
use crate::sync::model::Model;
use crate::sync::thread::{self, Thread};

/// Longer than a thread works jobs off one after the other: then it gives its place back.
const LONG: Duration = Duration::from_secs(1);
const SHORT: Duration = Duration::ZERO;

/// A lane with one place, and what its jobs did.
struct Lane {
    queue: Arc<Queue>,
    now: AtomicUsize,
    ran: Unseen,
    gone: Unseen,
}

/// Part of a closure, to see when it is dropped.
struct Part(Arc<Lane>);

impl Drop for Part {
    fn drop(&mut self) {
        self.0.gone.fetch_add(1, Relaxed);
    }
}

impl Lane {
    fn new(is_shut_down: bool) -> Arc<Self> {
        let counts = counters::lane_counters("model");
        Arc::new(Self {
            queue: Queue::new(1, None, Backend::Model { is_shut_down }, counts),
            now: AtomicUsize::new(0),
            ran: Unseen::new(0),
            gone: Unseen::new(0),
        })
    }

    fn submit(self: &Arc<Self>, took: Duration) -> Ticket {
        let part = Part(Arc::clone(self));
        let work = move |done: &mut dyn FnMut(Ran)| {
            let lane = &part.0;
            assert_eq!(lane.now.fetch_add(1, Relaxed), 0, "more than the limit");
            lane.ran.fetch_add(1, Relaxed);
            lane.now.fetch_sub(1, Relaxed);
            let from = Instant::now();
            drop(part);
            done(Ran {
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

    /// Takes nothing in any more, and waits for what was.
    fn drain(&self) {
        self.queue.close();
        wait_for(self.queue.drained());
        let load = self.queue.load();
        assert_eq!((load.running, load.queued), (0, 0), "not drained");
    }

    fn ran_and_gone(&self) -> (usize, usize) {
        (self.ran.load(Relaxed), self.gone.load(Relaxed))
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

/// Two threads give a job each to a lane with one place.
fn two_at_once(took: Duration, is_shut_down: bool, ran: usize) -> Model {
    Model::new(move || {
        let lane = Lane::new(is_shut_down);
        let other = {
            let lane = Arc::clone(&lane);
            loom::thread::spawn(move || lane.submit(took).used())
        };
        lane.submit(took).used();
        other.join().unwrap();
        lane.drain();
        assert_eq!(lane.ran_and_gone(), (ran, 2), "ran, and gone");
    })
}

/// There are never more at once than there are places, each job is run once, none is left beside a free
/// place, and who waits until the lane is drained learns of it. Here a place is passed on.
#[test]
fn a_place_that_is_passed_on_is_one_place() {
    two_at_once(SHORT, false, 2)
        .holds()
        .fails_without("place-count", "ran, and gone")
        .fails_without("place-limit", "more than the limit")
        .fails_without("drained-told", "deadlock");
}

/// The same where a place is given back though jobs wait.
#[test]
fn no_job_is_left_beside_a_free_place() {
    two_at_once(LONG, false, 2)
        .holds()
        .fails_without("place-limit", "more than the limit")
        .fails_without("place-fill", "deadlock");
}

/// The same where the runtime has shut down: nothing runs, and all of it is gone.
#[test]
fn what_cannot_run_is_gone() {
    two_at_once(SHORT, true, 0)
        .holds()
        .fails_without("place-fill", "deadlock");
}

/// A job that is withdrawn is run once or not at all, and gone; and a lane that only waited for it is
/// drained.
#[test]
fn what_is_withdrawn_is_gone() {
    let model = Model::new(|| {
        let lane = Lane::new(false);
        lane.submit(LONG).used();
        let ticket = lane.submit(LONG);
        let other = loom::thread::spawn(move || drop(ticket));
        lane.drain();
        other.join().unwrap();
        let (ran, gone) = lane.ran_and_gone();
        assert!(
            (1..=2).contains(&ran) && gone == 2,
            "{ran} ran, {gone} are gone"
        );
    });
    model.holds().fails_without("ticket-settle", "deadlock");
}

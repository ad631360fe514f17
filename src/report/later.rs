//! Polls that have ended and cannot be judged before the sentinel has looked: see
//! [`Judge::Later`](crate::watch::Judge). Where the sentinel is held up, its ticker judges them.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;

use crate::catch_panic::catch_panic;
use crate::liveness::TICKER;
use crate::slot::{SENTINEL_PARKER, SentinelParker};

type Job = Box<dyn FnOnce() + Send>;

/// So many wait at most; one that finds no place is judged at once, by what is known.
const CAPACITY: usize = 256;

/// How often a thread that waits looks whether everything is done, and has the sentinel look.
const STEP: Duration = Duration::from_millis(1);

static LEFT: LazyLock<Left> = LazyLock::new(Left::new);

/// Leaves a job to the sentinel.
pub(super) fn leave(job: Job) {
    LEFT.leave(job, &SENTINEL_PARKER);
    if TICKER.has_no_timer() {
        // The ticker stands in if the sentinel does not come, for which it must be up.
        TICKER.wake();
    }
}

/// Does what was left. The sentinel calls it after each look, and the ticker if the sentinel is held up; it
/// says whether there was anything.
pub(crate) fn run_all() -> bool {
    LEFT.run_all()
}

/// Whether anything is left. The sentinel asks between lying down and sleeping.
pub(crate) fn is_any() -> bool {
    !LEFT.waiting.is_empty()
}

/// Waits until nothing is left. False if that was not before the deadline.
pub(super) fn wait(deadline: Option<Instant>) -> bool {
    LEFT.wait(deadline, &SENTINEL_PARKER)
}

struct Left {
    waiting: ArrayQueue<Job>,
    /// Those in the queue and the one that is being done.
    undone: AtomicUsize,
}

impl Left {
    fn new() -> Self {
        Self {
            waiting: ArrayQueue::new(CAPACITY),
            undone: AtomicUsize::new(0),
        }
    }

    fn leave(&self, job: Job, sentinel: &SentinelParker) {
        self.undone.fetch_add(1, SeqCst);
        match self.waiting.push(job) {
            // The poll has ended: a sentinel that looked after that and saw nothing new may sleep.
            Ok(()) => sentinel.notify(),
            Err(job) => self.run(job),
        }
    }

    fn run(&self, job: Job) {
        catch_panic(job);
        self.undone.fetch_sub(1, SeqCst);
    }

    fn run_all(&self) -> bool {
        let mut any = false;
        for _ in 0..CAPACITY {
            let Some(job) = self.waiting.pop() else { break };
            self.run(job);
            any = true;
        }
        any
    }

    fn wait(&self, deadline: Option<Instant>, sentinel: &SentinelParker) -> bool {
        while self.undone.load(SeqCst) > 0 {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return false;
            }
            // A nap may last for the shortest budget in use, which may be longer than the deadline. In every
            // step, because the job may be on its way into the queue.
            sentinel.notify();
            sentinel.unpark();
            std::thread::sleep(STEP);
        }
        true
    }
}

#[cfg(all(test, not(shotclock_loom)))]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;
    use crate::tests::PATIENCE;

    /// A thread that takes the part of the sentinel: it rests, and does what was left when it was woken. The
    /// job is left when it says so.
    fn left_to(
        rest: impl Fn(&Left, &SentinelParker, &mpsc::Sender<()>) + Send + 'static,
    ) -> (Arc<Left>, Arc<SentinelParker>) {
        let (left, parker) = (Arc::new(Left::new()), Arc::new(SentinelParker::new()));
        let (ready, is_ready) = mpsc::channel();
        let its = (Arc::clone(&left), Arc::clone(&parker));
        std::thread::spawn(move || {
            let (left, parker) = its;
            parker.register();
            while !left.run_all() {
                rest(&left, &parker, &ready);
            }
        });
        is_ready.recv_timeout(PATIENCE).expect("it rests");
        (left, parker)
    }

    #[test]
    fn leave_with_a_sentinel_that_sleeps_wakes_it() {
        let (left, parker) = left_to(|left, parker, ready| {
            if parker.prepare_park() && left.waiting.is_empty() {
                ready.send(()).unwrap();
                parker.park();
            } else {
                // There is no such fence here, so no sentinel sleeps.
                parker.cancel_park();
                ready.send(()).unwrap();
            }
        });
        let (done, is_done) = mpsc::channel();
        left.leave(Box::new(move || done.send(()).unwrap()), &parker);
        is_done.recv_timeout(PATIENCE).unwrap();
        assert!(left.wait(Some(Instant::now() + PATIENCE), &parker));
    }

    #[test]
    fn wait_with_a_sentinel_that_naps_ends_the_nap() {
        let (left, parker) = left_to(|_, _, ready| {
            ready.send(()).unwrap();
            // A nap that is longer than anybody waits.
            std::thread::park();
        });
        left.leave(Box::new(|| ()), &parker);
        assert!(left.wait(Some(Instant::now() + PATIENCE), &parker));
    }

    #[test]
    fn wait_past_its_deadline_is_false() {
        let (left, parker) = (Left::new(), SentinelParker::new());
        left.leave(Box::new(|| ()), &parker);
        assert!(!left.wait(Some(Instant::now()), &parker));
        assert!(left.run_all() && left.wait(None, &parker));
    }

    #[test]
    fn leave_without_a_place_runs_the_job_at_once() {
        let (left, parker) = (Left::new(), SentinelParker::new());
        let (done, is_done) = mpsc::channel();
        for number in 0..=CAPACITY {
            let done = done.clone();
            left.leave(Box::new(move || done.send(number).unwrap()), &parker);
        }
        assert_eq!(is_done.try_iter().collect::<Vec<_>>(), [CAPACITY]);
        assert!(left.run_all());
        assert_eq!(is_done.try_iter().count(), CAPACITY);
    }
}

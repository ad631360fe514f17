//! Defers the attribution of ended polls until the next scan of the sentinel.
//!
//! See [`EndDiagnosis::Later`](crate::watch::EndDiagnosis). If the sentinel is held up, the ticker runs the jobs.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;

use crate::catch_panic::catch_panic;
use crate::liveness::TICKER;
use crate::slot::{SENTINEL_PARKER, SentinelParker};

type DeferredJob = Box<dyn FnOnce() + Send>;

/// Jobs that can wait. Beyond it, a job runs at once with the facts that are known.
const MAX_JOBS: usize = 256;

/// The interval at which a waiting thread checks for pending jobs, and makes the sentinel scan.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

static DEFERRED: LazyLock<Deferred> = LazyLock::new(Deferred::new);

/// Leaves a job to the sentinel.
pub(super) fn defer(job: DeferredJob) {
    DEFERRED.defer(job, &SENTINEL_PARKER);
    if TICKER.has_no_timer() {
        // The ticker must run to replace a sentinel that is held up.
        TICKER.wake();
    }
}

/// Runs the deferred jobs, and returns whether there were any.
///
/// The sentinel calls this after each scan. The ticker calls it if the sentinel is held up.
pub(crate) fn run_all() -> bool {
    DEFERRED.run_all()
}

/// Returns whether a job waits. The sentinel asks before it parks.
pub(crate) fn is_any() -> bool {
    !DEFERRED.waiting.is_empty()
}

/// Waits until no job is left. Returns false at the deadline.
pub(super) fn wait(deadline: Option<Instant>) -> bool {
    DEFERRED.wait(deadline, &SENTINEL_PARKER)
}

struct Deferred {
    waiting: ArrayQueue<DeferredJob>,
    /// Jobs in the queue or running.
    pending: AtomicUsize,
}

impl Deferred {
    fn new() -> Self {
        Self {
            waiting: ArrayQueue::new(MAX_JOBS),
            pending: AtomicUsize::new(0),
        }
    }

    fn defer(&self, job: DeferredJob, sentinel: &SentinelParker) {
        self.pending.fetch_add(1, SeqCst);
        match self.waiting.push(job) {
            // The poll has ended, so the sentinel may have parked since.
            Ok(()) => sentinel.notify(),
            Err(job) => self.run(job),
        }
    }

    fn run(&self, job: DeferredJob) {
        catch_panic(job);
        self.pending.fetch_sub(1, SeqCst);
    }

    fn run_all(&self) -> bool {
        let mut any = false;
        for _ in 0..MAX_JOBS {
            let Some(job) = self.waiting.pop() else { break };
            self.run(job);
            any = true;
        }
        any
    }

    fn wait(&self, deadline: Option<Instant>, sentinel: &SentinelParker) -> bool {
        while self.pending.load(SeqCst) > 0 {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return false;
            }
            // A sleep lasts up to the shortest budget in use, which may exceed the deadline. Repeated, because the job
            // may not be in the queue yet.
            sentinel.notify();
            sentinel.unpark();
            std::thread::sleep(POLL_INTERVAL);
        }
        true
    }
}

#[cfg(all(test, not(shotclock_loom)))]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;
    use crate::tests::MAX_WAIT;

    /// Starts a thread in the role of the sentinel: it rests, and runs the deferred jobs when it is woken.
    fn with_sentinel(
        rest: impl Fn(&Deferred, &SentinelParker, &mpsc::Sender<()>) + Send + 'static,
    ) -> (Arc<Deferred>, Arc<SentinelParker>) {
        let (deferred, parker) = (Arc::new(Deferred::new()), Arc::new(SentinelParker::new()));
        let (ready, is_ready) = mpsc::channel();
        let shared = (Arc::clone(&deferred), Arc::clone(&parker));
        std::thread::spawn(move || {
            let (deferred, parker) = shared;
            parker.register();
            while !deferred.run_all() {
                rest(&deferred, &parker, &ready);
            }
        });
        is_ready.recv_timeout(MAX_WAIT).expect("it rests");
        (deferred, parker)
    }

    #[test]
    fn defer_with_a_parked_sentinel_wakes_it() {
        let (deferred, parker) = with_sentinel(|deferred, parker, ready| {
            if parker.prepare_park() && deferred.waiting.is_empty() {
                ready.send(()).unwrap();
                parker.park();
            } else {
                // Without the asymmetric fence, no sentinel parks.
                parker.cancel_park();
                ready.send(()).unwrap();
            }
        });
        let (done, is_done) = mpsc::channel();
        deferred.defer(Box::new(move || done.send(()).unwrap()), &parker);
        is_done.recv_timeout(MAX_WAIT).unwrap();
        assert!(deferred.wait(Some(Instant::now() + MAX_WAIT), &parker));
    }

    #[test]
    fn wait_with_a_sleeping_sentinel_ends_the_sleep() {
        let (deferred, parker) = with_sentinel(|_, _, ready| {
            ready.send(()).unwrap();
            // A sleep that no test outlasts.
            std::thread::park();
        });
        deferred.defer(Box::new(|| ()), &parker);
        assert!(deferred.wait(Some(Instant::now() + MAX_WAIT), &parker));
    }

    #[test]
    fn wait_past_the_deadline_is_false() {
        let (deferred, parker) = (Deferred::new(), SentinelParker::new());
        deferred.defer(Box::new(|| ()), &parker);
        assert!(!deferred.wait(Some(Instant::now()), &parker));
        assert!(deferred.run_all() && deferred.wait(None, &parker));
    }

    #[test]
    fn defer_to_a_full_queue_runs_the_job_at_once() {
        let (deferred, parker) = (Deferred::new(), SentinelParker::new());
        let (done, is_done) = mpsc::channel();
        for number in 0..=MAX_JOBS {
            let done = done.clone();
            deferred.defer(Box::new(move || done.send(number).unwrap()), &parker);
        }
        assert_eq!(is_done.try_iter().collect::<Vec<_>>(), [MAX_JOBS]);
        assert!(deferred.run_all());
        assert_eq!(is_done.try_iter().count(), MAX_JOBS);
    }
}

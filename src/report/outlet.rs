//! One reporter, its queue and its thread.
//!
//! The queue is bounded and lock-free: a worker that reports never waits. If a reporter blocks, its
//! queue fills, what comes then is refused, and nobody else notices.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;

use super::{Reporter, SlowPoll, StuckWorker};
use crate::contain::contain;
use crate::error::Error;
use crate::slot;

thread_local! {
    /// Whether this thread reports at this moment; a reporter's own thread always does.
    static REPORTING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Marks the calling thread, for itself and for the sentinel.
fn set_reporting(reporting: bool) -> bool {
    if let Some(slot) = slot::current() {
        slot.set_mute(reporting);
    }
    REPORTING.replace(reporting)
}

/// Runs `report`, unless this thread reports already: what is slow in there (a subscriber that is
/// itself watched, say) must not be reported, or it would feed itself. `None` then. It must not
/// panic.
pub(super) fn reporting<T>(report: impl FnOnce() -> T) -> Option<T> {
    if set_reporting(true) {
        return None;
    }
    let reported = report();
    set_reporting(false);
    Some(reported)
}

/// The end that workers push into. Dropping it lets the thread finish what is queued and end.
pub(crate) struct Outlet {
    shared: Arc<Shared>,
    thread: Thread,
}

/// What a reporter is told.
#[derive(Clone)]
pub(super) enum Report {
    Slow(Arc<SlowPoll>),
    Stuck(Arc<StuckWorker>),
}

impl Report {
    fn tell(&self, reporter: &dyn Reporter) {
        match self {
            Report::Slow(slow) => reporter.on_slow_poll(slow),
            Report::Stuck(stuck) => reporter.on_stuck_worker(stuck),
        }
    }
}

struct Shared {
    queue: ArrayQueue<Report>,
    closed: AtomicBool,
    progress: Mutex<Progress>,
    advanced: Condvar,
}

/// For [`Outlet::flush`] alone: which requests to flush were made, and which were met.
#[derive(Default)]
struct Progress {
    asked: u64,
    met: u64,
}

impl Outlet {
    pub(crate) fn open(
        reporter: Box<dyn Reporter>,
        name: &str,
        capacity: usize,
    ) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            queue: ArrayQueue::new(capacity),
            closed: AtomicBool::new(false),
            progress: Mutex::default(),
            advanced: Condvar::new(),
        });
        let run = {
            let shared = Arc::clone(&shared);
            move || shared.run(&*reporter)
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        let thread = thread.map_err(|error| Error::thread(name, error))?;
        Ok(Self {
            shared,
            thread: thread.thread().clone(),
        })
    }

    /// Queues a report; false if there is no place for it. Never waits.
    pub(super) fn offer(&self, report: Report) -> bool {
        let taken = self.shared.queue.push(report).is_ok();
        // A system call only if the thread sleeps.
        self.thread.unpark();
        taken
    }

    /// Waits until everything queued before the call was handed to the reporter.
    pub(super) fn flush(&self, deadline: Option<Instant>) -> bool {
        let shared = &*self.shared;
        let mut progress = shared.lock();
        progress.asked += 1;
        let request = progress.asked;
        self.thread.unpark();
        while progress.met < request {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return false;
            }
            // Without a deadline the wait is in steps, which costs a look a minute.
            let step = left.unwrap_or(Duration::from_secs(60));
            let waited = shared.advanced.wait_timeout(progress, step);
            progress = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

impl Shared {
    fn run(&self, reporter: &dyn Reporter) {
        set_reporting(true);
        loop {
            let closed = self.closed.load(Ordering::Acquire);
            let asked = self.lock().asked;
            self.drain(reporter, asked);
            if closed {
                return;
            }
            // The reporter may have parked as well, and so have used up any of the wake-ups.
            let asked_again = self.lock().asked != asked;
            if !asked_again && self.queue.is_empty() && !self.closed.load(Ordering::Acquire) {
                std::thread::park();
            }
        }
    }

    /// Hands over what is queued, then tells those who asked before it began.
    fn drain(&self, reporter: &dyn Reporter, asked: u64) {
        // A bound, so that a flush is answered even while more keeps coming.
        for _ in 0..self.queue.capacity() {
            let Some(report) = self.queue.pop() else {
                break;
            };
            // The report is dropped in there as well: it may close a span of the subscriber's.
            contain(move || report.tell(reporter));
        }
        self.lock().met = asked;
        self.advanced.notify_all();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

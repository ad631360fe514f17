//! Runs one reporter on its own thread, behind a bounded queue.
//!
//! The queue is lock-free, so a worker that reports never waits. If a reporter blocks, its queue fills and refuses
//! further reports. No other reporter notices.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

use crate::background_thread;
use crate::catch_panic::catch_panic;
use crate::error::Error;
use crate::report::{Reporter, SlowPoll, StuckWorker};
use crate::slot;
use crate::sync::thread::{self, Thread};
use crate::sync::{ArrayQueue, AtomicBool, Condvar, IgnorePoison as _, Mutex, MutexGuard};

thread_local! {
    /// Whether this thread makes or delivers a report now. A reporter's own thread always does.
    static REPORTING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Marks the calling thread as reporting, for itself and for the sentinel. Returns the mark before.
fn set_reporting(reporting: bool) -> bool {
    if let Some(slot) = slot::current() {
        slot.set_reporting(reporting);
    }
    REPORTING.replace(reporting)
}

/// Runs `report`, unless this thread reports already; returns `None` then.
///
/// A slow poll inside a reporter, for instance of a watched subscriber, must not be reported: it would feed itself.
/// `report` must not panic.
pub(super) fn reporting<T>(report: impl FnOnce() -> T) -> Option<T> {
    if set_reporting(true) {
        return None;
    }
    let reported = report();
    set_reporting(false);
    Some(reported)
}

/// The handle of a reporter's thread. Dropping it lets the thread deliver what is queued, and end.
pub(crate) struct ReporterThread<R = Report> {
    shared: Arc<ReportQueue<R>>,
    thread: Thread,
}

/// One entry of a reporter's queue.
#[derive(Clone)]
pub(crate) enum Report {
    Slow(Arc<SlowPoll>),
    Stuck(Arc<StuckWorker>),
}

impl Report {
    /// Returns the number of polls or workers that the rate limit suppressed before this one.
    pub(super) fn suppressed(&self) -> u64 {
        match self {
            Report::Slow(slow) => slow.suppressed,
            Report::Stuck(stuck) => stuck.suppressed,
        }
    }

    fn deliver(&self, reporter: &dyn Reporter) {
        match self {
            Report::Slow(slow) => reporter.on_slow_poll(slow),
            Report::Stuck(stuck) => reporter.on_stuck_worker(stuck),
        }
    }
}

pub(crate) struct ReportQueue<R> {
    queue: ArrayQueue<R>,
    pub(crate) closed: AtomicBool,
    progress: Mutex<Progress>,
    advanced: Condvar,
}

/// Counts the requests of [`ReporterThread::flush`].
#[derive(Default)]
pub(crate) struct Progress {
    pub(crate) requested: u64,
    done: u64,
}

impl ReporterThread {
    pub(crate) fn start(
        reporter: Box<dyn Reporter>,
        name: &str,
        capacity: usize,
    ) -> Result<Self, Error> {
        Self::spawn(name, capacity, move |shared| {
            set_reporting(true);
            shared.run(&|report: Report| report.deliver(&*reporter));
        })
    }
}

impl<R: Send + 'static> ReporterThread<R> {
    /// Starts the thread, which runs `run`.
    pub(crate) fn spawn(
        name: &str,
        capacity: usize,
        run: impl FnOnce(&ReportQueue<R>) + Send + 'static,
    ) -> Result<Self, Error> {
        let shared = Arc::new(ReportQueue {
            queue: ArrayQueue::new(capacity),
            closed: AtomicBool::new(false),
            progress: Mutex::default(),
            advanced: Condvar::new(),
        });
        let run = {
            let shared = Arc::clone(&shared);
            move || run(&shared)
        };
        let thread = background_thread::spawn(name, run)?;
        Ok(Self { shared, thread })
    }

    /// Queues a report. Returns false if the queue is full. Never waits.
    pub(crate) fn offer(&self, report: R) -> bool {
        let is_queued = self.shared.queue.push(report).is_ok();
        // Costs a system call only if the thread sleeps.
        self.thread.unpark(); // model: offer-wake
        is_queued
    }

    /// Waits until the reporter got everything that was queued before the call. Returns false at the deadline.
    pub(crate) fn flush(&self, deadline: Option<Instant>) -> bool {
        let shared = &*self.shared;
        let mut progress = shared.lock();
        progress.requested += 1;
        let request = progress.requested;
        self.thread.unpark(); // model: flush-wake
        while progress.done < request {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return false;
            }
            // Without a deadline, the wait checks once a minute.
            let step = left.unwrap_or(Duration::from_secs(60));
            let waited = shared.advanced.wait_timeout(progress, step);
            progress = waited.ignore_poison().0;
        }
        true
    }
}

impl<R> Drop for ReporterThread<R> {
    fn drop(&mut self) {
        self.shared.closed.store(true, Release); // model: close
        self.thread.unpark(); // model: close-wake
    }
}

impl<R> ReportQueue<R> {
    pub(crate) fn run(&self, deliver: &impl Fn(R)) {
        loop {
            // Reads both before the queue: `drain` then delivers all that was queued before them.
            let closed = self.closed.load(Acquire); // model: closed-first
            let requested = self.lock().requested;
            self.drain(deliver);
            self.complete(requested);
            if closed {
                return;
            }
            // The reporter may have parked too, and used up any of the wake-ups.
            if !self.has_work(requested) {
                thread::park();
            }
        }
    }

    /// Returns whether there is something to do, after the flush request `done`.
    pub(crate) fn has_work(&self, done: u64) -> bool {
        let is_requested = self.lock().requested > done; // model: park-asked
        let has_reports = !self.queue.is_empty(); // model: park-queue
        let is_closed = self.closed.load(Acquire); // model: park-closed
        is_requested || has_reports || is_closed
    }

    /// Delivers what is queued.
    pub(crate) fn drain(&self, deliver: &impl Fn(R)) {
        // Bounded, so that a flush completes even while more reports keep coming.
        for _ in 0..self.queue.capacity() {
            let Some(report) = self.queue.pop() else {
                break;
            };
            // `deliver` also drops the report, which may close a span of the subscriber.
            catch_panic(|| deliver(report));
        }
    }

    /// Completes the flush requests up to `requested`.
    pub(crate) fn complete(&self, requested: u64) {
        self.lock().done = requested;
        self.advanced.notify_all();
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().ignore_poison()
    }
}

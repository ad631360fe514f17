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
use crate::sync::{
    ArrayQueue, AtomicBool, Condvar, IgnorePoison as _, Mutex, MutexGuard, broken, unless_broken,
};

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
    shared: Arc<Shared<R>>,
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

struct Shared<R> {
    queue: ArrayQueue<R>,
    closed: AtomicBool,
    progress: Mutex<Progress>,
    advanced: Condvar,
}

/// Counts the requests of [`ReporterThread::flush`].
#[derive(Default)]
struct Progress {
    requested: u64,
    done: u64,
}

impl ReporterThread {
    pub(crate) fn start(
        reporter: Box<dyn Reporter>,
        name: &str,
        capacity: usize,
    ) -> Result<Self, Error> {
        let prepare = || {
            set_reporting(true);
        };
        Self::spawn(name, capacity, prepare, move |report: Report| {
            report.deliver(&*reporter)
        })
    }
}

impl<R: Send + 'static> ReporterThread<R> {
    /// Starts the thread: it calls `prepare` once, and `deliver` for each report.
    fn spawn(
        name: &str,
        capacity: usize,
        prepare: impl FnOnce() + Send + 'static,
        deliver: impl Fn(R) + Send + 'static,
    ) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            queue: ArrayQueue::new(capacity),
            closed: AtomicBool::new(false),
            progress: Mutex::default(),
            advanced: Condvar::new(),
        });
        let run = {
            let shared = Arc::clone(&shared);
            move || {
                prepare();
                shared.run(&deliver);
            }
        };
        let thread = background_thread::spawn(name, run)?;
        Ok(Self { shared, thread })
    }

    /// Queues a report. Returns false if the queue is full. Never waits.
    pub(super) fn offer(&self, report: R) -> bool {
        let is_queued = self.shared.queue.push(report).is_ok();
        // Costs a system call only if the thread sleeps.
        if !broken("offer-wake") {
            self.thread.unpark();
        }
        is_queued
    }

    /// Waits until the reporter got everything that was queued before the call. Returns false at the deadline.
    pub(super) fn flush(&self, deadline: Option<Instant>) -> bool {
        let shared = &*self.shared;
        let mut progress = shared.lock();
        progress.requested += 1;
        let request = progress.requested;
        if !broken("flush-wake") {
            self.thread.unpark();
        }
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
        let publish = unless_broken("close-release", Release);
        self.shared.closed.store(true, publish);
        if !broken("close-wake") {
            self.thread.unpark();
        }
    }
}

impl<R> Shared<R> {
    fn run(&self, deliver: &impl Fn(R)) {
        loop {
            // Reads both before the queue: `drain` then delivers all that was queued before them.
            let closed = self.is_closed();
            let requested = self.lock().requested;
            self.drain(deliver, requested);
            if closed || broken("close-first") && self.is_closed() {
                return;
            }
            // The reporter may have parked too, and used up any of the wake-ups.
            if !self.has_work(requested) {
                thread::park();
            }
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(unless_broken("close-acquire", Acquire))
    }

    /// Returns whether there is something to do, after the flush request `done`.
    fn has_work(&self, done: u64) -> bool {
        let is_requested = self.lock().requested != done && !broken("park-asked");
        let has_reports = !self.queue.is_empty() && !broken("park-queue");
        is_requested || has_reports || self.is_closed() && !broken("park-closed")
    }

    /// Delivers what is queued, then completes the flush requests up to `requested`.
    fn drain(&self, deliver: &impl Fn(R), requested: u64) {
        // Bounded, so that a flush completes even while more reports keep coming.
        for _ in 0..self.queue.capacity() {
            let Some(report) = self.queue.pop() else {
                break;
            };
            // `deliver` also drops the report, which may close a span of the subscriber.
            catch_panic(|| deliver(report));
        }
        let mut progress = self.lock();
        progress.done = match broken("flush-first") {
            false => requested,
            true => progress.requested,
        };
        drop(progress);
        self.advanced.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().ignore_poison()
    }
}

/// `RUSTFLAGS="--cfg shotclock_loom" cargo test --release --lib models`
#[cfg(all(test, shotclock_loom))]
mod models {
    use super::*;
    use crate::sync::model::Model;
    use std::sync::Mutex as Unseen;

    /// What was told, as seen by the one who looks at the model from outside.
    type Told = Arc<Unseen<Vec<u32>>>;

    /// An outlet which a model that has failed leaves as it is: there is nothing to wake any more.
    struct Open(Option<ReporterThread<u32>>);

    impl std::ops::Deref for Open {
        type Target = ReporterThread<u32>;

        fn deref(&self) -> &ReporterThread<u32> {
            self.0.as_ref().unwrap()
        }
    }

    impl Drop for Open {
        fn drop(&mut self) {
            if std::thread::panicking() {
                std::mem::forget(self.0.take());
            }
        }
    }

    /// Tells the main thread of each report; and uses up the wake-ups of its own thread, as a reporter may.
    fn open(capacity: usize, told: &Told) -> Open {
        let (main, told) = (thread::current(), Arc::clone(told));
        let tell = move |report| {
            told.lock().unwrap().push(report);
            thread::use_wake_up();
            main.unpark();
        };
        Open(Some(
            ReporterThread::spawn("", capacity, || (), tell).unwrap(),
        ))
    }

    fn told(told: &Told) -> Vec<u32> {
        told.lock().unwrap().clone()
    }

    /// No wake-up is lost: a report that found a place is told, though nobody asks and nothing more comes.
    #[test]
    fn what_is_offered_is_told_before_long() {
        let model = Model::new(|| {
            let log = Told::default();
            let outlet = open(1, &log);
            let taken: Vec<_> = [1, 2].into_iter().filter(|n| outlet.offer(*n)).collect();
            assert_eq!(taken.first(), Some(&1));
            while told(&log) != taken {
                thread::park();
            }
        });
        model
            .holds()
            .fails_without("offer-wake", "deadlock")
            .fails_without("park-queue", "deadlock");
    }

    /// When a flush is over, everything is told that was taken before it began; and it ends.
    #[test]
    fn what_was_offered_before_a_flush_is_told_after_it() {
        let model = Model::new(|| {
            let log = Told::default();
            let outlet = open(2, &log);
            assert!(outlet.offer(1) && outlet.offer(2));
            assert!(outlet.flush(None));
            assert_eq!(told(&log), [1, 2], "flushed");
        });
        model
            .preemptions(3)
            .holds()
            .fails_without("flush-wake", "deadlock")
            .fails_without("flush-first", "flushed")
            .fails_without("park-asked", "deadlock");
    }

    /// What was taken is told before the thread ends, and once the outlet is dropped it ends.
    #[test]
    fn what_was_offered_before_the_end_is_told() {
        struct End(Told);

        impl Drop for End {
            fn drop(&mut self) {
                assert_eq!(told(&self.0), [1], "at the end of the thread");
            }
        }

        let model = Model::new(|| {
            let log = Told::default();
            let end = End(Arc::clone(&log));
            let tell = move |report| {
                end.0.lock().unwrap().push(report);
                thread::use_wake_up();
            };
            let outlet = ReporterThread::spawn("", 1, || (), tell).unwrap();
            assert!(outlet.offer(1));
        });
        const LOST: &str = "at the end of the thread";
        model
            .holds()
            .fails_without("close-wake", "deadlock")
            .fails_without("close-first", LOST)
            .fails_without("close-release", LOST)
            .fails_without("close-acquire", LOST)
            .fails_without("park-closed", "deadlock");
    }
}

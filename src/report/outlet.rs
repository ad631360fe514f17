//! One reporter, its queue and its thread.
//!
//! The queue is bounded and lock-free: a worker that reports never waits. If a reporter blocks, its
//! queue fills, what comes then is refused, and nobody else notices.

use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::{Reporter, SlowPoll, StuckWorker};
use crate::catch_panic::catch_panic;
use crate::error::Error;
use crate::service_thread;
use crate::slot;
use crate::sync::thread::{self, Thread};
use crate::sync::{ArrayQueue, AtomicBool, Condvar, Mutex, MutexGuard, broken, unless_broken};

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
pub(crate) struct Outlet<R = Report> {
    shared: Arc<Shared<R>>,
    thread: Thread,
}

/// What a reporter is told.
#[derive(Clone)]
pub(crate) enum Report {
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

struct Shared<R> {
    queue: ArrayQueue<R>,
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
        let prepare = || {
            set_reporting(true);
        };
        Self::start(name, capacity, prepare, move |report: Report| {
            report.tell(&*reporter)
        })
    }
}

impl<R: Send + 'static> Outlet<R> {
    /// The thread prepares, and then tells what comes.
    fn start(
        name: &str,
        capacity: usize,
        prepare: impl FnOnce() + Send + 'static,
        tell: impl Fn(R) + Send + 'static,
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
                shared.run(&tell);
            }
        };
        let thread = service_thread::spawn(name, run)?;
        Ok(Self { shared, thread })
    }

    /// Queues a report; false if there is no place for it. Never waits.
    pub(super) fn offer(&self, report: R) -> bool {
        let taken = self.shared.queue.push(report).is_ok();
        // A system call only if the thread sleeps.
        if !broken("offer-wake") {
            self.thread.unpark();
        }
        taken
    }

    /// Waits until everything queued before the call was handed to the reporter.
    pub(super) fn flush(&self, deadline: Option<Instant>) -> bool {
        let shared = &*self.shared;
        let mut progress = shared.lock();
        progress.asked += 1;
        let request = progress.asked;
        if !broken("flush-wake") {
            self.thread.unpark();
        }
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

impl<R> Drop for Outlet<R> {
    fn drop(&mut self) {
        let publish = unless_broken("close-release", Release);
        self.shared.closed.store(true, publish);
        if !broken("close-wake") {
            self.thread.unpark();
        }
    }
}

impl<R> Shared<R> {
    fn run(&self, tell: &impl Fn(R)) {
        loop {
            // Both before what is queued: what was there by then is handed over now.
            let closed = self.is_closed();
            let asked = self.lock().asked;
            self.drain(tell, asked);
            if closed || broken("close-first") && self.is_closed() {
                return;
            }
            // The reporter may have parked as well, and so have used up any of the wake-ups.
            if !self.is_wanted(asked) {
                thread::park();
            }
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(unless_broken("close-acquire", Acquire))
    }

    /// Whether there is something to do, after the last request to flush that was met.
    fn is_wanted(&self, met: u64) -> bool {
        let is_asked = self.lock().asked != met && !broken("park-asked");
        let is_full = !self.queue.is_empty() && !broken("park-queue");
        is_asked || is_full || self.is_closed() && !broken("park-closed")
    }

    /// Hands over what is queued, then tells those who asked before it began.
    fn drain(&self, tell: &impl Fn(R), asked: u64) {
        // A bound, so that a flush is answered even while more keeps coming.
        for _ in 0..self.queue.capacity() {
            let Some(report) = self.queue.pop() else {
                break;
            };
            // The report is dropped in there as well: it may close a span of the subscriber's.
            catch_panic(|| tell(report));
        }
        let mut progress = self.lock();
        progress.met = match broken("flush-first") {
            false => asked,
            true => progress.asked,
        };
        drop(progress);
        self.advanced.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
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
    struct Open(Option<Outlet<u32>>);

    impl std::ops::Deref for Open {
        type Target = Outlet<u32>;

        fn deref(&self) -> &Outlet<u32> {
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
        Open(Some(Outlet::start("", capacity, || (), tell).unwrap()))
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
            let outlet = Outlet::start("", 1, || (), tell).unwrap();
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

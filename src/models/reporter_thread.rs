//! A reporter's queue and thread against those that report, flush and drop it.

use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::{DEADLOCK, Model};
use crate::dispatch::reporter_thread::{ReportQueue, ReporterThread};
use crate::sync::fault::Fault::{Relaxed, Skipped, Stale};
use crate::sync::thread;

/// What the reporter received, for the assertions.
type Log = Arc<Mutex<Vec<u32>>>;

/// What the thread does, with the function that reports.
type Run = fn(&ReportQueue<u32>, &dyn Fn(u32));

/// A reporter thread that leaks in a failed model, where no thread is left to wake.
struct Open(Option<ReporterThread<u32>>);

impl Deref for Open {
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

/// The reporter wakes the main thread at each report. It uses up the wake-ups of its own thread, as a reporter may.
fn open(capacity: usize, log: &Log, run: Run) -> Open {
    let (main, log) = (thread::current(), Arc::clone(log));
    let report = move |report| {
        log.lock().unwrap().push(report);
        thread::use_wake_up();
        main.unpark();
    };
    let run = move |shared: &ReportQueue<u32>| run(shared, &report);
    Open(Some(ReporterThread::spawn("", capacity, run).unwrap()))
}

fn received(log: &Log) -> Vec<u32> {
    log.lock().unwrap().clone()
}

fn run(shared: &ReportQueue<u32>, report: &dyn Fn(u32)) {
    shared.run(&report);
}

/// As [`ReportQueue::run`], but looks at the requests and at the end only after it has drained the queue.
fn run_and_look_too_late(shared: &ReportQueue<u32>, report: &dyn Fn(u32)) {
    loop {
        shared.drain(&report);
        let requested = shared.lock().requested;
        shared.complete(requested);
        if shared.closed.load(Ordering::Acquire) {
            return;
        }
        if !shared.has_work(requested) {
            thread::park();
        }
    }
}

/// No wake-up is lost: a report that found a place arrives, though no flush and no other report comes.
#[test]
fn report_that_is_queued_arrives_without_a_flush() {
    let model = Model::new(|| {
        let log = Log::default();
        let reporter = open(1, &log, run);
        let queued: Vec<_> = [1, 2].into_iter().filter(|n| reporter.offer(*n)).collect();
        assert_eq!(queued.first(), Some(&1));
        while received(&log) != queued {
            thread::park();
        }
    });
    model
        .holds()
        .fails_with(Skipped, "offer-wake", DEADLOCK)
        .fails_with(Skipped, "park-queue", DEADLOCK);
}

fn flush_two_reports(run: Run) -> Model {
    let model = Model::new(move || {
        let log = Log::default();
        let reporter = open(2, &log, run);
        assert!(reporter.offer(1) && reporter.offer(2));
        assert!(reporter.flush(None));
        assert_eq!(received(&log), [1, 2], "flushed");
    });
    model.preemptions(3)
}

/// A flush ends, and the reports that were queued before it have arrived then.
#[test]
fn report_that_is_queued_before_a_flush_arrives_before_its_end() {
    flush_two_reports(run)
        .holds()
        .fails_with(Skipped, "flush-wake", DEADLOCK)
        .fails_with(Skipped, "park-asked", DEADLOCK);
}

#[test]
fn flush_that_the_thread_sees_too_late_ends_too_early() {
    flush_two_reports(run_and_look_too_late).fails("flushed");
}

const LOST: &str = "at the end of the thread";

fn drop_after_a_report(run: Run) -> Model {
    /// Asserts that the report has arrived when the thread drops it.
    struct End(Log);

    impl Drop for End {
        fn drop(&mut self) {
            assert_eq!(received(&self.0), [1], "{LOST}");
        }
    }

    Model::new(move || {
        let end = End(Log::default());
        let report = move |report| {
            end.0.lock().unwrap().push(report);
            thread::use_wake_up();
        };
        let run = move |shared: &ReportQueue<u32>| run(shared, &report);
        let reporter = ReporterThread::spawn("", 1, run).unwrap();
        assert!(reporter.offer(1));
    })
}

/// The thread ends once the handle is dropped, and hands over what is queued before that.
#[test]
fn report_that_is_queued_before_the_drop_arrives_and_the_thread_ends() {
    drop_after_a_report(run)
        .holds()
        .fails_with(Relaxed, "close", LOST)
        .fails_with(Relaxed, "closed-first", LOST)
        .fails_with(Skipped, "close-wake", DEADLOCK)
        .fails_with(Stale, "park-closed", DEADLOCK);
}

#[test]
fn report_before_a_drop_that_the_thread_sees_too_late_is_lost() {
    drop_after_a_report(run_and_look_too_late).fails(LOST);
}

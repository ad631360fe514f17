//! Excused time causes no report, no escalation step, no stall, and no missing heartbeat.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use common::stacks;
use shotclock::report::SectionKind;
use shotclock::{
    Escalation, Health, Phase, SlowPoll, Status, WatchExt as _, Watchdog, allow_blocking,
};

const MS: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than a busy machine takes between two statements.
const LONG: Duration = Duration::from_secs(3);

struct Scene {
    watchdog: Watchdog,
    reports: Receiver<SlowPoll>,
    /// The number of escalation steps taken.
    steps: Arc<AtomicU64>,
}

impl Scene {
    /// The age at which the escalation calls.
    fn new(after: Duration) -> Self {
        let (tx, reports) = mpsc::channel();
        let steps = Arc::<AtomicU64>::default();
        let count = Arc::clone(&steps);
        let step = move |_: &SlowPoll| {
            count.fetch_add(1, Ordering::Relaxed);
        };
        let report = move |slow: &SlowPoll| drop(tx.send(slow.clone()));
        let builder = Watchdog::builder().without_tracing().on_slow_poll(report);
        let builder = builder.escalate(after, Escalation::call(step));
        let watchdog = builder.build().unwrap();
        assert!(stacks(&watchdog).works());
        Self {
            watchdog,
            reports,
            steps,
        }
    }

    fn steps(&self) -> u64 {
        assert!(self.watchdog.flush(PATIENCE));
        self.steps.load(Ordering::Relaxed)
    }

    /// Returns the health while `work` runs.
    fn health_during(&self, work: impl FnOnce()) -> Vec<Health> {
        let (is_over, watchdog) = (AtomicBool::new(false), &self.watchdog);
        thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut seen = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    seen.push(watchdog.health());
                    thread::sleep(MS);
                }
                seen
            });
            work();
            is_over.store(true, Ordering::Relaxed);
            watch.join().unwrap()
        })
    }

    #[track_caller]
    fn assert_responsive_during(&self, work: impl FnOnce()) {
        for health in self.health_during(work) {
            assert_eq!(health.status, Status::Responsive, "{health}");
            assert_eq!(health.oldest_stall, None, "{health}");
        }
    }
}

#[test]
fn allowance_counts_for_no_stall_and_no_step_and_what_follows_counts_from_its_end() {
    let scene = Scene::new(LONG);
    let watch = scene.watchdog.watch("allowed");
    let poll = watch.enter();
    scene.assert_responsive_during(|| {
        let _allowed = allow_blocking("a test", PATIENCE);
        thread::sleep(LONG + 500 * MS);
        assert_eq!(scene.steps(), 0);
        assert_eq!(scene.reports.try_iter().count(), 0);
    });
    // After the allowance, the poll is charged again, without the allowed time.
    let slow = loop {
        match scene.reports.try_recv() {
            Ok(slow) => break slow,
            Err(_) => thread::sleep(MS),
        }
    };
    assert!(slow.charged < slow.elapsed - LONG, "{slow}");
    let health = scene.watchdog.health();
    assert_eq!(health.status, Status::Stalled);
    assert!(health.oldest_stall.unwrap() < slow.elapsed, "{health}");
    drop(poll);
    assert_eq!(scene.steps(), 0);
    let end = scene.reports.recv_timeout(PATIENCE).unwrap();
    assert!(end.charged < end.elapsed - LONG, "{end}");
}

#[test]
fn allowance_of_an_inner_slow_poll_hides_nothing_of_the_outer_one() {
    let scene = Scene::new(PATIENCE);
    let (outer, inner) = (scene.watchdog.watch("outer"), scene.watchdog.watch("inner"));
    let around = outer.enter();
    {
        let _allowed = allow_blocking("a test", PATIENCE);
        let _within = inner.enter();
        thread::sleep(300 * MS);
    }
    thread::sleep(100 * MS);
    drop(around);
    let is_end = |slow: &SlowPoll| slow.phase == Phase::Finished;
    let end = scene.reports.iter().find(is_end).unwrap();
    assert_eq!(&*end.watch, "outer", "{end}");
    assert!(
        end.charged >= 100 * MS && end.charged <= end.elapsed - 300 * MS,
        "{end}"
    );
}

#[test]
fn leaked_allowance_marks_no_later_poll() {
    let scene = Scene::new(PATIENCE);
    let watch = scene.watchdog.watch("leaky");
    {
        let _poll = watch.enter();
        std::mem::forget(allow_blocking("a test", 50 * MS));
    }
    for _ in 0..2 {
        let _poll = watch.enter();
        thread::sleep(60 * MS);
    }
    assert!(scene.watchdog.flush(PATIENCE));
    let reports: Vec<_> = scene.reports.try_iter().collect();
    let ends = reports.iter().filter(|slow| slow.phase == Phase::Finished);
    assert_eq!(ends.count(), 2);
    for slow in &reports {
        assert_eq!(slow.allowance, None, "{slow}");
        assert_eq!(slow.charged, slow.elapsed, "{slow}");
    }
}

#[test]
fn contained_poll_is_slow_and_holds_up_nothing() {
    let scene = Scene::new(50 * MS);
    let watch = scene.watchdog.watch("legacy").contained();
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    let work = |time| {
        let poll = async move { thread::sleep(time) }.watched(&watch);
        runtime.block_on(runtime.spawn(poll)).unwrap();
    };
    // The watch learns that its polls overrun. On a busy machine a poll may only be starved.
    while watch.stats().contained_polls == 0 {
        work(20 * MS);
    }
    assert!(scene.watchdog.flush(PATIENCE));
    scene.reports.try_iter().for_each(drop);
    scene.assert_responsive_during(|| work(400 * MS));
    assert_eq!(scene.steps(), 0);
    let reports: Vec<_> = scene.reports.try_iter().collect();
    assert!(!reports.is_empty());
    for slow in &reports {
        assert_eq!(
            (slow.kind, slow.handed_over),
            (SectionKind::Contained, true),
            "{slow}"
        );
        assert!(slow.hint().contains("only this task waits"), "{slow}");
    }
}

#[test]
fn poll_in_a_block_in_place_of_its_own_is_slow_and_holds_up_nothing() {
    let scene = Scene::new(LONG);
    let watch = scene.watchdog.watch("handed over");
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    let (stop, stopped) = mpsc::channel::<()>();
    let poll = async move { tokio::task::block_in_place(|| stopped.recv().is_ok()) };
    let task = runtime.spawn(poll.watched(&watch));
    // The stack shows it. On a busy machine the thread may answer late.
    let mut reports = scene.reports.iter();
    let first = reports.find(|slow| slow.handed_over).unwrap();
    assert!(first.hint().contains("only this task waits"), "{first}");
    // Since the scan that found it.
    scene.assert_responsive_during(|| thread::sleep(LONG + 500 * MS));
    assert_eq!(scene.steps(), 0);
    drop(stop);
    runtime.block_on(task).unwrap();
    let is_end = |slow: &SlowPoll| slow.phase == Phase::Finished;
    assert!(scene.reports.iter().find(is_end).unwrap().handed_over);
}

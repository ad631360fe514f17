//! Guarded runtimes without watched futures.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, ThreadId};
use std::time::Duration;

use shotclock::page::Page;
use shotclock::{
    Cause, Guard, Phase, SlowPoll, Status, StuckWorker, WatchExt as _, Watchdog, WatchdogBuilder,
};
use tokio::runtime::{Builder as RuntimeBuilder, Handle, Runtime};

const PATIENCE: Duration = Duration::from_secs(60);
/// Long enough for several reports of a stuck worker.
const LONG: Duration = Duration::from_millis(600);

/// A report of either kind.
struct Told {
    workers: Receiver<StuckWorker>,
    polls: Receiver<SlowPoll>,
}

impl Told {
    fn worker(&self) -> StuckWorker {
        self.workers.recv_timeout(PATIENCE).unwrap()
    }

    #[track_caller]
    fn assert_no_worker(&self) {
        if let Ok(stuck) = self.workers.try_recv() {
            panic!("{stuck}");
        }
    }

    /// Returns the report of the end with that id.
    fn end_of(&self, id: u64) -> StuckWorker {
        let mut rest = std::iter::from_fn(|| self.workers.recv_timeout(PATIENCE).ok());
        rest.find(|stuck| (stuck.id, stuck.phase) == (id, Phase::Finished))
            .unwrap()
    }
}

fn watchdog_of(builder: WatchdogBuilder) -> (Watchdog, Told) {
    let (workers, told_workers) = mpsc::channel();
    let (polls, told_polls) = mpsc::channel();
    let watchdog = builder
        .without_tracing()
        .on_stuck_worker(move |stuck: &StuckWorker| drop(workers.send(stuck.clone())))
        .on_slow_poll(move |slow: &SlowPoll| drop(polls.send(slow.clone())))
        .build()
        .unwrap();
    // Before the unwind tables are loaded, a report would have no stack.
    let _ = common::stacks(&watchdog);
    let told = Told {
        workers: told_workers,
        polls: told_polls,
    };
    (watchdog, told)
}

fn watchdog() -> (Watchdog, Told) {
    watchdog_of(Watchdog::builder())
}

fn runtime(workers: usize) -> Runtime {
    RuntimeBuilder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .unwrap()
}

/// Guards a runtime, and returns when the threads of its workers are known.
fn guard(watchdog: &Watchdog, name: &str, runtime: &Runtime) -> Guard {
    let guard = watchdog.guard(name, runtime.handle());
    assert!(guard.is_active());
    while known_workers(watchdog, name) < runtime.metrics().num_workers() {
        thread::sleep(Duration::from_millis(1));
    }
    guard
}

/// Returns the number of workers with a known thread.
fn known_workers(watchdog: &Watchdog, runtime: &str) -> usize {
    let state = Page::new(watchdog).answer("/state.json").body;
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
    let threads = state["threads"].as_array().unwrap();
    let is_worker = |thread: &&serde_json::Value| thread["runtime"] == runtime;
    threads.iter().filter(is_worker).count()
}

/// Blocks a worker until the sender is dropped.
fn block(runtime: &Handle) -> Sender<()> {
    let (release, held) = mpsc::channel();
    runtime.spawn(async move { wait_for_the_release(&held) });
    release
}

#[inline(never)]
fn wait_for_the_release(held: &Receiver<()>) {
    let _ = held.recv_timeout(PATIENCE);
}

#[test]
fn blocked_worker_is_reported_with_its_line() {
    let (watchdog, told) = watchdog();
    let runtime = runtime(4);
    let _guard = guard(&watchdog, "main", &runtime);
    assert_eq!(watchdog.health().status, Status::Responsive);

    let release = block(runtime.handle());
    let first = told.worker();
    assert_eq!((first.phase, &*first.runtime), (Phase::Running, "main"));
    assert!(first.worker < 4 && first.elapsed > first.budget, "{first}");
    assert_eq!(first.budget, Duration::from_millis(100));
    let thread = first.thread.as_ref().map(ToString::to_string);
    assert_eq!(thread.as_deref(), Some("tokio-rt-worker"), "{first}");
    assert!(matches!(first.cause, Cause::Blocked(_)), "{first}");
    let stack = first.stack.as_ref().map(ToString::to_string);
    let stack = stack.unwrap_or_else(|| panic!("it has no stack: {first}"));
    assert!(stack.contains("wait_for_the_release"), "{first}");
    assert!(stack.contains("tests/guard.rs"), "{first}");
    assert!(first.hint().contains("tokio::sync::mpsc"), "{first}");
    let impact = first.runtime_snapshot.as_ref().unwrap();
    assert_eq!((&*impact.runtime, impact.workers), ("main", 4));

    let health = watchdog.health();
    assert_eq!((health.status, health.stuck_workers), (Status::Stalled, 1));
    assert!(health.oldest_stall >= Some(first.elapsed));

    let again = told.worker();
    assert_eq!((again.id, again.phase), (first.id, Phase::Running));
    assert!(again.elapsed >= 2 * first.elapsed, "{again}");

    release.send(()).unwrap();
    let end = told.end_of(first.id);
    assert!(end.elapsed >= again.elapsed, "{end}");
    assert_eq!(watchdog.health().stuck_workers, 0);
}

#[test]
fn all_workers_stuck_at_once_are_reported() {
    let (watchdog, told) = watchdog();
    let runtime = runtime(2);
    let _guard = guard(&watchdog, "all", &runtime);
    let releases = [block(runtime.handle()), block(runtime.handle())];
    // One worker may have its second report before the other has its first.
    let mut workers = HashSet::new();
    while workers.len() < 2 {
        workers.insert(told.worker().worker);
    }
    assert_eq!(workers, [0, 1].into());
    while watchdog.health().stuck_workers < 2 {
        thread::yield_now();
    }
    drop(releases);
}

#[test]
fn watched_poll_on_a_stuck_worker_is_reported_with_the_runtime() {
    let (watchdog, told) = watchdog_of(Watchdog::builder().budget(Duration::from_millis(20)));
    let runtime = runtime(2);
    let _guard = guard(&watchdog, "impact", &runtime);
    let (release, held) = mpsc::channel();
    let watch = watchdog.watch("culprit");
    let stuck = async move { wait_for_the_release(&held) }.watched(&watch);
    runtime.spawn(stuck);
    while watchdog.health().stuck_workers == 0 {
        thread::yield_now();
    }
    let impact = told
        .polls
        .recv_timeout(PATIENCE)
        .unwrap()
        .runtime_snapshot
        .unwrap();
    assert_eq!((&*impact.runtime, impact.workers), ("impact", 2));
    assert!(
        impact.to_string().contains("of 2 workers parked"),
        "{impact}"
    );
    release.send(()).unwrap();
    while watchdog.health().stuck_workers > 0 {
        thread::yield_now();
    }
    assert!(watchdog.flush(PATIENCE));
    told.assert_no_worker();
}

#[test]
fn watched_poll_within_its_budget_is_named_with_its_stuck_worker() {
    let (watchdog, told) = watchdog();
    let runtime = runtime(2);
    let _guard = guard(&watchdog, "path", &runtime);
    let (release, held) = mpsc::channel();
    let watch = watchdog.watch("patient").with_budget(Duration::MAX);
    runtime.spawn(async move { wait_for_the_release(&held) }.watched(&watch));
    let stuck = told.worker();
    assert_eq!(stuck.path.to_string(), "patient");
    release.send(()).unwrap();
}

#[test]
fn current_thread_runtime_in_block_on_is_guarded() {
    let (watchdog, told) = watchdog();
    let runtime = RuntimeBuilder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _guard = watchdog.guard("current", runtime.handle());
    let first = runtime.block_on(async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        told.worker()
    });
    assert_eq!((first.worker, &*first.runtime), (0, "current"));
    let stack = first.stack.as_ref().unwrap().to_string();
    assert!(stack.contains("guard::"), "{first}");
    // No thread is in `block_on`, and its counters stand still.
    told.end_of(first.id);
    thread::sleep(LONG);
    assert!(watchdog.flush(PATIENCE));
    told.assert_no_worker();
    assert_eq!(watchdog.health().stuck_workers, 0);
}

#[test]
fn thread_without_its_worker_is_not_reported() {
    let (watchdog, told) = watchdog();
    let runtime = runtime(2);
    let _guard = guard(&watchdog, "handed over", &runtime);
    let task = runtime.spawn(async { tokio::task::block_in_place(|| thread::sleep(LONG)) });
    runtime.block_on(task).unwrap();
    assert!(watchdog.flush(PATIENCE));
    told.assert_no_worker();
}

/// Blocks the only worker after it moved to an unknown thread, until the sender is dropped. Returns that thread.
fn block_on_an_unknown_thread(runtime: &Runtime) -> (ThreadId, Sender<()>) {
    let handle = runtime.handle().clone();
    let hands_over = async move {
        let (began, begins) = mpsc::channel();
        let (release, held) = mpsc::channel::<()>();
        handle.spawn(async move {
            began.send(()).unwrap();
            wait_for_the_release(&held);
        });
        // Another thread runs the worker from now on, and that one is blocked.
        tokio::task::block_in_place(|| begins.recv_timeout(PATIENCE).unwrap());
        (thread::current().id(), release)
    };
    runtime.block_on(runtime.spawn(hands_over)).unwrap()
}

#[test]
fn thread_back_in_the_pool_is_not_reported() {
    let (watchdog, told) = watchdog();
    let runtime = runtime(1);
    let _guard = guard(&watchdog, "gone", &runtime);
    let (gone, release) = block_on_an_unknown_thread(&runtime);
    let stuck = told.worker();
    assert_ne!(
        stuck.thread.as_ref().map(|thread| thread.id),
        Some(gone),
        "{stuck}"
    );
    release.send(()).unwrap();
}

#[test]
fn short_stalls_do_not_hide_a_worker_with_an_unknown_thread() {
    let (watchdog, told) = watchdog();
    let runtime = runtime(1);
    let _guard = guard(&watchdog, "hidden", &runtime);
    let is_over = AtomicBool::new(false);
    let stall = || {
        let watch = watchdog.watch("elsewhere");
        while !is_over.load(Ordering::Relaxed) {
            let _poll = watch.enter();
            thread::sleep(Duration::from_millis(150));
        }
    };
    thread::scope(|scope| {
        // Nearly always, one of them is over its budget.
        for _ in 0..3 {
            scope.spawn(stall);
        }
        let (_, release) = block_on_an_unknown_thread(&runtime);
        let stuck = told.workers.recv_timeout(PATIENCE);
        is_over.store(true, Ordering::Relaxed);
        release.send(()).unwrap();
        assert!(stuck.is_ok(), "it was not told");
    });
}

#[test]
fn guard_of_an_ended_runtime_ends() {
    let (watchdog, told) = watchdog();
    let ending = runtime(2);
    let guard_of_ending = guard(&watchdog, "ending", &ending);
    let release = block(ending.handle());
    let first = told.worker();
    // It does not wait for the stuck worker.
    ending.shutdown_background();
    while guard_of_ending.is_active() {
        thread::yield_now();
    }
    told.end_of(first.id);
    assert_eq!(watchdog.health().stuck_workers, 0);
    release.send(()).unwrap();

    // Another runtime may have its name, and the counters continue.
    let runtime = runtime(2);
    let _guard = guard(&watchdog, "ending", &runtime);
    let release = block(runtime.handle());
    assert_ne!(told.worker().id, first.id);
    release.send(()).unwrap();
}

#[test]
fn several_guarded_runtimes_have_their_names() {
    let (watchdog, told) = watchdog();
    let runtimes = [("a", runtime(2)), ("b", runtime(1))];
    let _guards: Vec<_> = runtimes
        .iter()
        .map(|(name, runtime)| guard(&watchdog, name, runtime))
        .collect();
    for (name, runtime) in &runtimes {
        let release = block(runtime.handle());
        let stuck = told.worker();
        assert_eq!((&*stuck.runtime, stuck.phase), (*name, Phase::Running));
        release.send(()).unwrap();
        told.end_of(stuck.id);
    }
}

#[test]
fn guarded_builder_keeps_the_users_hooks() {
    let (watchdog, told) = watchdog();
    let mut builder = RuntimeBuilder::new_multi_thread();
    let guard = watchdog.guard_builder("built", builder.worker_threads(2));
    assert!(!guard.is_active(), "there is no runtime yet");
    let (hooks, parked) = (guard.hooks(), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&parked);
    builder.on_thread_park(move || {
        hooks.on_thread_park();
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let runtime = builder.build().unwrap();
    // On a busy host a worker may find its first task before it has ever parked.
    let has_parked = |worker| runtime.metrics().worker_park_unpark_count(worker) > 0;
    while !(guard.is_active() && (0..2).all(has_parked)) {
        thread::yield_now();
    }
    let release = block(runtime.handle());
    if cfg!(tokio_unstable) {
        // The task is watched, so its poll is reported, and the worker is only counted.
        let slow = told.polls.recv_timeout(PATIENCE).unwrap();
        assert!(slow.watch.starts_with("tests/guard.rs:"), "{slow}");
        while watchdog.health().stuck_workers == 0 {
            thread::yield_now();
        }
        told.assert_no_worker();
    } else {
        let stuck = told.worker();
        assert!(stuck.thread.is_some() && stuck.stack.is_some(), "{stuck}");
    }
    assert!(parked.load(Ordering::Relaxed) > 0);
    release.send(()).unwrap();
}

#[test]
fn guarded_builder_of_a_current_thread_runtime_works() {
    let (watchdog, told) = watchdog();
    let mut builder = RuntimeBuilder::new_current_thread();
    let _guard = watchdog.guard_builder("built current", builder.enable_all());
    let runtime = builder.build().unwrap();
    let stuck = runtime.block_on(async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        told.worker()
    });
    assert_eq!((&*stuck.runtime, stuck.worker), ("built current", 0));
}

#[test]
fn guard_outside_a_runtime_is_inactive() {
    let guard = shotclock::guard();
    assert!(!guard.is_active());
    assert!(format!("{guard:?}").contains("None"));
    guard.hooks().on_thread_park();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guard_function_guards_the_callers_runtime() {
    let guard = shotclock::guard();
    assert!(guard.is_active());
    let watchdog = shotclock::Watchdog::global().unwrap();
    assert_eq!(watchdog.budget(), Duration::from_millis(10));
}

#[test]
fn guard_budget_below_the_minimum_is_refused() {
    let builder = Watchdog::builder().guard_budget(Duration::from_millis(9));
    let error = builder.build().unwrap_err();
    assert!(error.is_invalid_setting());
    assert!(error.to_string().contains("guard_budget"), "{error}");
}

#[test]
fn starved_worker_is_not_stuck() {
    let (watchdog, told) = watchdog_of(Watchdog::builder().guard_budget(Duration::from_millis(10)));
    let runtime = runtime(2);
    let _guard = guard(&watchdog, "starved", &runtime);
    // The worker makes short polls, and is on the run queue for the rest.
    let _spinners = common::Spinners::start(8);
    let busy = || async {
        for _ in 0..20_000 {
            common::compute(Duration::from_micros(10));
            tokio::task::yield_now().await;
        }
    };
    let tasks = [runtime.spawn(busy()), runtime.spawn(busy())];
    runtime.block_on(futures::future::join_all(tasks));
    assert!(watchdog.flush(PATIENCE));
    // A worker that waits for a lock of the runtime is blocked, although only the holder was not scheduled.
    let is_at_work = |stuck: &StuckWorker| {
        let stack = stuck.stack.as_ref().map(ToString::to_string);
        !matches!(stuck.cause, Cause::Blocked(_))
            || stack.is_none_or(|stack| stack.contains("guard::"))
    };
    if let Some(stuck) = told.workers.try_iter().find(is_at_work) {
        panic!("{stuck}");
    }
}

//! All tasks of a guarded runtime, watched by tokio's hooks under `--cfg tokio_unstable`:
//!
//! ```sh
//! RUSTFLAGS="--cfg tokio_unstable" cargo test --test tasks
//! ```

#![cfg(tokio_unstable)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use shotclock::testing::Recorder;
use shotclock::{Guard, Phase, WatchExt as _, Watchdog};
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

const MS: Duration = Duration::from_millis(1);

fn guarded(watchdog: &Watchdog, workers: usize) -> (Guard, Runtime) {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(workers).enable_all();
    let guard = watchdog.guard_builder("tasks", &mut builder);
    (guard, builder.build().unwrap())
}

fn watchdog() -> (Watchdog, Recorder) {
    let recorder = Recorder::new();
    let watchdog = Watchdog::builder().budget(20 * MS).without_tracing();
    let watchdog = watchdog.reporter(recorder.clone()).build().unwrap();
    (watchdog, recorder)
}

#[test]
fn task_is_watched_under_its_spawn_location() {
    let (watchdog, recorder) = watchdog();
    let (_guard, runtime) = guarded(&watchdog, 2);
    let line = line!() + 1;
    let task = runtime.spawn(async {
        for _ in 0..9 {
            yield_now().await;
        }
    });
    runtime.block_on(task).unwrap();
    let name = format!("{}:{line}", file!());
    // The hook after the last poll runs after the end of the task.
    while watchdog.watch(name.clone()).stats().polls < 10 {
        thread::yield_now();
    }
    assert_eq!(watchdog.watch(name).stats().polls, 10);
    recorder.assert_silent(&watchdog);
}

#[test]
fn stuck_task_is_reported_once_while_it_runs() {
    let (watchdog, recorder) = watchdog();
    let (_guard, runtime) = guarded(&watchdog, 2);
    let (release, held) = mpsc::channel::<()>();
    let line = line!() + 1;
    let task = runtime.spawn(async move {
        let _ = held.recv();
    });
    let stuck = recorder.wait_for(|slow| slow.phase == Phase::Running);
    assert_eq!(*stuck.watch, format!("{}:{line}", file!()));
    assert_eq!(
        (stuck.location.file(), stuck.location.line()),
        (file!(), line)
    );
    assert_eq!(&*stuck.runtime_snapshot.unwrap().runtime, "tasks");
    // Over the budget of the guard too.
    while watchdog.health().stuck_workers == 0 {
        thread::yield_now();
    }
    release.send(()).unwrap();
    runtime.block_on(task).unwrap();
    recorder.wait_for(|slow| slow.phase == Phase::Finished && slow.id == stuck.id);
    // The poll is reported, and not the worker.
    recorder.settled(&watchdog);
    let workers = recorder.stuck_workers();
    assert!(workers.is_empty(), "{}", workers[0]);
}

#[test]
fn watched_future_inside_a_task_is_charged_instead_of_the_task() {
    let (watchdog, recorder) = watchdog();
    let (_guard, runtime) = guarded(&watchdog, 2);
    let inner = watchdog.watch("inner");
    let task = runtime.spawn(async { thread::sleep(50 * MS) }.watched(&inner));
    runtime.block_on(task).unwrap();
    recorder.wait_for(|slow| slow.phase == Phase::Finished);
    // The hooks of the next task run after those of the previous one, on any worker.
    let reports = recorder.settled(&watchdog);
    assert!(reports.iter().all(|slow| &*slow.watch == "inner"));
    assert!(reports.iter().all(|slow| slow.path.iter().count() == 1));
}

#[test]
fn task_that_panics_or_runs_a_runtime_leaves_no_poll_in_flight() {
    let (watchdog, recorder) = watchdog();
    let (guard, runtime) = guarded(&watchdog, 1);
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let panics = runtime.spawn(async { panic!("on purpose") });
    assert!(runtime.block_on(panics).is_err());
    std::panic::set_hook(hook);
    let nested = runtime.spawn(async {
        tokio::task::block_in_place(|| {
            let inner = Builder::new_current_thread().build().unwrap();
            inner.block_on(async { tokio::spawn(yield_now()).await.unwrap() });
        });
    });
    runtime.block_on(nested).unwrap();
    drop(guard);
    // Tokio still calls its hooks, which do nothing.
    let after = runtime.spawn(async {});
    runtime.block_on(after).unwrap();
    let names = watchdog.snapshot().to_string();
    assert!(names.contains("tests/tasks.rs"), "{names}");
    while watchdog.snapshot().iter().any(|watch| watch.in_flight > 0) {
        thread::yield_now();
    }
    recorder.assert_silent(&watchdog);
}

/// Polls a task in a current-thread runtime with its own watchdog, which holds the token.
fn guard_this_thread_once(token: &Arc<()>, polls_after_the_guard: bool) {
    let held = Arc::clone(token);
    let watchdog = Watchdog::builder().without_tracing();
    let watchdog = watchdog.on_slow_poll(move |_: &shotclock::SlowPoll| drop(Arc::clone(&held)));
    let watchdog = watchdog.build().unwrap();
    let mut builder = Builder::new_current_thread();
    let guard = watchdog.guard_builder("again and again", &mut builder);
    let runtime = builder.build().unwrap();
    let poll = || runtime.block_on(async { tokio::spawn(yield_now()).await.unwrap() });
    poll();
    drop(guard);
    if polls_after_the_guard {
        poll();
    }
}

/// Waits until at most this number of watchdogs hold the token, because reporter threads end later.
#[track_caller]
fn assert_held_by_at_most(token: &Arc<()>, most: usize) {
    const LOOKS: usize = 60_000;
    let holders = || Arc::strong_count(token) - 1;
    for _ in 0..LOOKS {
        if holders() <= most {
            return;
        }
        thread::sleep(MS);
    }
    panic!("{} watchdogs are still there", holders());
}

#[test]
fn ended_guards_of_a_thread_are_forgotten() {
    let token = Arc::new(());
    for _ in 0..20 {
        guard_this_thread_once(&token, false);
    }
    // The thread forgets the last one when it meets a new one.
    assert_held_by_at_most(&token, 1);
}

#[test]
fn guard_ended_before_its_runtime_is_forgotten_by_the_next_poll() {
    let token = Arc::new(());
    guard_this_thread_once(&token, true);
    assert_held_by_at_most(&token, 0);
}

//! Proofs that a worker of a guarded runtime is in one poll, and reports without a proof. Each restricted scenario has its own
//! process.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unsafe_code, reason = "calls of the operating system block")]

mod common;
mod lacking;

use std::fs::File;
use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use common::{in_a_child, scenario, stacks};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use lacking::make_deadly;
use shotclock::report::StuckKind;
use shotclock::{
    Cause, Guard, Phase, Status, StuckWorker, WatchExt as _, Watchdog, WatchdogBuilder,
    allow_blocking,
};
use tokio::runtime::{Builder as RuntimeBuilder, Runtime};
use tokio::task::yield_now;

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the scenario of a child process. It is no test by itself.
#[test]
fn child() {
    if scenario().as_deref() == Some("no breakpoints") {
        // As under `SystemCallFilter=@system-service` of systemd.
        make_deadly(libc::SYS_perf_event_open);
        no_breakpoints();
    }
}

/// One test at a time, because two computing tests would starve the sentinel.
static TURN: Mutex<()> = Mutex::new(());

struct Scene {
    _turn: MutexGuard<'static, ()>,
    watchdog: Watchdog,
    reports: Receiver<StuckWorker>,
    runtime: Runtime,
    _guard: Guard,
}

impl Scene {
    fn new() -> Self {
        Self::with(Watchdog::builder(), &mut RuntimeBuilder::new_multi_thread())
    }

    fn with(builder: WatchdogBuilder, runtime: &mut RuntimeBuilder) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let (tx, reports) = mpsc::channel();
        let report = move |stuck: &StuckWorker| drop(tx.send(stuck.clone()));
        let builder = builder.without_tracing().on_stuck_worker(report);
        let watchdog = builder.build().unwrap();
        assert!(stacks(&watchdog).works());
        let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
        let guard = watchdog.guard("scene", runtime.handle());
        // A worker with an unknown thread is only busy.
        thread::sleep(Duration::from_millis(200));
        Self {
            _turn: turn,
            watchdog,
            reports,
            runtime,
            _guard: guard,
        }
    }

    fn next(&self) -> StuckWorker {
        self.reports.recv_timeout(PATIENCE).unwrap()
    }

    /// Returns the first report of `kind`, of a task that makes steps in one poll until then.
    fn report_of(&self, kind: StuckKind, mut step: impl FnMut() + Send + 'static) -> StuckWorker {
        let (stop, stopped) = mpsc::channel::<()>();
        self.runtime.spawn(async move {
            while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                step();
            }
        });
        let report = loop {
            let report = self.next();
            assert_eq!(report.phase, Phase::Running, "{report}");
            // On a busy machine a proof may take longer to find.
            if report.kind == kind {
                break report;
            }
        };
        drop(stop);
        while self.next().phase != Phase::Finished {}
        report
    }

    /// The kind of report of a worker that computes.
    fn computing(&self) -> StuckKind {
        match self.watchdog.capabilities().breakpoints.works() {
            true => StuckKind::OnePoll,
            false => StuckKind::Busy,
        }
    }

    #[track_caller]
    fn assert_no_report(&self) {
        assert!(self.watchdog.flush(PATIENCE));
        if let Ok(stuck) = self.reports.try_recv() {
            panic!("{stuck}");
        }
    }
}

#[inline(never)]
fn compute(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

type Block = Box<dyn FnOnce() + Send>;

/// All ways to block in one call.
fn calls(time: Duration) -> Vec<(&'static str, Block)> {
    let (tx, rx) = mpsc::channel::<()>();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let locked = Arc::new(Mutex::new(()));
    let to_lock = Arc::clone(&locked);
    let later = move |f: Block| {
        thread::spawn(move || {
            thread::sleep(time);
            f();
        });
    };
    vec![
        ("thread::sleep", Box::new(move || thread::sleep(time))),
        (
            "recv",
            Box::new(move || {
                later(Box::new(move || drop(tx)));
                let _ = rx.recv();
            }),
        ),
        (
            "read of a pipe",
            Box::new(move || {
                later(Box::new(move || drop(writer)));
                let _ = File::from(reader).read(&mut [0]);
            }),
        ),
        (
            "read of a socket",
            Box::new(move || {
                later(Box::new(move || drop(listener.accept())));
                let _ = { stream }.read(&mut [0]);
            }),
        ),
        (
            "lock",
            Box::new(move || {
                let (held, is_held) = mpsc::channel();
                thread::spawn(move || {
                    let _lock = locked.lock();
                    held.send(()).unwrap();
                    thread::sleep(time);
                });
                is_held.recv().unwrap();
                drop(to_lock.lock());
            }),
        ),
        (
            "condition variable",
            Box::new(move || {
                let lock = Mutex::new(());
                let guard = lock.lock().unwrap();
                drop(Condvar::new().wait_timeout(guard, time));
            }),
        ),
        (
            "Command::output",
            Box::new(move || {
                let seconds = time.as_secs_f64().to_string();
                Command::new("sleep").arg(seconds).output().unwrap();
            }),
        ),
        (
            "usleep",
            Box::new(move || {
                // SAFETY: a number only.
                unsafe { libc::usleep(time.as_micros() as u32) };
            }),
        ),
    ]
}

#[test]
fn worker_blocked_in_one_call_is_reported() {
    let scene = Scene::new();
    for (name, block) in calls(Duration::from_millis(1_500)) {
        let (done, is_done) = mpsc::channel();
        scene.runtime.spawn(async move {
            block();
            let _ = done.send(());
        });
        let first = scene.next();
        let is_running = is_done.try_recv().is_err();
        assert_eq!(
            (first.phase, first.kind),
            (Phase::Running, StuckKind::OnePoll),
            "{name}: {first}"
        );
        assert!(is_running, "{name}: reported when it was over: {first}");
        assert!(matches!(first.cause, Cause::Blocked(_)), "{name}: {first}");
        while scene.next().phase != Phase::Finished {}
    }
}

#[test]
fn worker_computing_in_one_poll_is_reported() {
    let scene = Scene::new();
    let stuck = scene.report_of(scene.computing(), || compute(Duration::from_millis(1)));
    assert_eq!(stuck.cause, Cause::Computing, "{stuck}");
    let stack = stuck.stack.as_ref().unwrap().to_string();
    assert!(stack.contains("stuck_workers::Scene::report_of"), "{stuck}");
    if stuck.kind == StuckKind::OnePoll {
        assert!(stuck.to_string().contains("stuck in one poll"), "{stuck}");
    }
}

#[test]
fn worker_with_many_sleeps_in_one_poll_is_reported() {
    let scene = Scene::new();
    let sleep = || thread::sleep(Duration::from_millis(3));
    let stuck = scene.report_of(scene.computing(), sleep);
    assert!(stuck.elapsed > stuck.budget, "{stuck}");
}

#[test]
fn watched_poll_in_flight_proves_one_poll() {
    let builder = Watchdog::builder().budget(PATIENCE);
    let scene = Scene::with(builder, &mut RuntimeBuilder::new_multi_thread());
    let watch = scene.watchdog.watch("watched");
    let (stop, stopped) = mpsc::channel::<()>();
    let work = async move {
        while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
            thread::sleep(Duration::from_millis(3));
        }
    };
    scene.runtime.spawn(work.watched(&watch));
    let first = scene.next();
    assert_eq!(first.kind, StuckKind::OnePoll, "{first}");
    assert_eq!(first.path.to_string(), "watched");
    drop(stop);
    while scene.next().phase != Phase::Finished {}
}

#[test]
fn executor_inside_one_poll_is_reported() {
    let builder = Watchdog::builder().guard_budget(Duration::from_millis(20));
    let scene = Scene::with(builder, &mut RuntimeBuilder::new_multi_thread());
    let watch = scene.watchdog.watch("inner");
    let (stop, stopped) = mpsc::channel::<()>();
    scene.runtime.spawn(tokio::task::unconstrained(async move {
        // Ready children, polled in one poll of the task.
        let child = || async { compute(Duration::from_micros(50)) }.watched(&watch);
        let mut children: FuturesUnordered<_> = (0..4).map(|_| child()).collect();
        while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
            children.next().await;
            children.push(child());
        }
    }));
    let first = scene.next();
    assert!(first.elapsed > first.budget, "{first}");
    drop(stop);
}

/// Computes until a report of `kind`.
async fn computes_until(kind: StuckKind, reports: Receiver<StuckWorker>) {
    loop {
        compute(Duration::from_millis(1));
        if reports.try_recv().is_ok_and(|report| report.kind == kind) {
            return;
        }
    }
}

#[test]
fn worker_computing_on_a_current_thread_runtime_is_reported() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for in_a_task in [true, false] {
        let (tx, reports) = mpsc::channel();
        let report = move |stuck: &StuckWorker| drop(tx.send(stuck.clone()));
        let builder = Watchdog::builder().without_tracing();
        let watchdog = builder.on_stuck_worker(report).build().unwrap();
        assert!(stacks(&watchdog).works());
        let kind = match watchdog.capabilities().breakpoints.works() {
            true => StuckKind::OnePoll,
            false => StuckKind::Busy,
        };
        let runtime = RuntimeBuilder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            // Called on the worker, so its thread is known.
            let _guard = watchdog.guard("current", runtime.handle());
            yield_now().await;
            match in_a_task {
                true => tokio::spawn(computes_until(kind, reports)).await.unwrap(),
                false => computes_until(kind, reports).await,
            }
        });
    }
}

#[test]
fn worker_inside_allow_blocking_is_not_reported() {
    let builder = Watchdog::builder().guard_budget(Duration::from_millis(20));
    let scene = Scene::with(builder, &mut RuntimeBuilder::new_multi_thread());
    let blocks = scene.runtime.spawn(async {
        let _allowed = allow_blocking("a test", PATIENCE);
        thread::sleep(Duration::from_millis(400));
        compute(Duration::from_millis(400));
    });
    while !blocks.is_finished() {
        let health = scene.watchdog.health();
        assert_eq!(health.status, Status::Responsive, "{health}");
        assert_eq!((health.stuck_workers, health.busy_workers), (0, 0));
        thread::sleep(Duration::from_millis(5));
    }
    scene.assert_no_report();
}

#[test]
fn worker_with_a_suppressed_watched_poll_is_reported() {
    let builder = Watchdog::builder()
        .budget(Duration::from_millis(40))
        .reports_per_second(1);
    let scene = Scene::with(builder, &mut RuntimeBuilder::new_multi_thread());
    let watch = scene.watchdog.watch("noisy");
    let patient = watch.with_budget(Duration::from_millis(100));
    let (stop, stopped) = mpsc::channel::<()>();
    let stuck = async move { stopped.recv().unwrap_err() };
    // Uses up the one report of this second, and of the next.
    let noise = || {
        let _slow = watch.enter();
        thread::sleep(Duration::from_millis(50));
    };
    noise();
    scene.runtime.spawn(stuck.watched(&patient));
    let first = loop {
        match scene.reports.try_recv() {
            Ok(first) => break first,
            Err(_) => noise(),
        }
    };
    assert_eq!(first.kind, StuckKind::OnePoll, "{first}");
    assert_eq!(first.path.to_string(), "noisy");
    drop(stop);
}

/// Without breakpoints there is no proof that a computing worker is in one poll.
fn no_breakpoints() {
    let scene = Scene::new();
    let missing = scene.watchdog.capabilities().breakpoints;
    assert!(missing.to_string().contains("perf_event_open"), "{missing}");
    let (stop, stopped) = mpsc::channel::<()>();
    scene.runtime.spawn(async move {
        while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
            compute(Duration::from_millis(1));
        }
    });
    let first = scene.next();
    println!("{first}");
    assert_eq!(first.kind, StuckKind::Busy, "{first}");
    assert_eq!(first.budget, Duration::from_secs(1));
    assert!(first.elapsed > first.budget, "{first}");
    let text = first.to_string();
    // The lines below name the functions of this file, which have the word too.
    let first_line = text.lines().next().unwrap();
    assert!(first_line.contains("in one poll or in many"), "{text}");
    assert!(!first_line.contains("stuck"), "{text}");
    let stack = first.stack.as_ref().unwrap().to_string();
    assert!(stack.contains("stuck_workers::no_breakpoints"), "{first}");
    // Without a proof it has no culprit.
    let health = scene.watchdog.health();
    assert_eq!(health.status, Status::Responsive, "{health}");
    assert_eq!((health.stuck_workers, health.busy_workers), (0, 1));
    let culprits = scene.watchdog.culprits().to_string();
    assert!(!culprits.contains("stuck_workers::"), "{culprits}");
    drop(stop);
    while {
        let next = scene.next();
        assert_eq!(next.id, first.id, "{next}");
        next.phase != Phase::Finished
    } {}
    assert_eq!(scene.watchdog.health().busy_workers, 0);
}

#[test]
fn worker_computing_without_proof_is_reported_as_busy() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    in_a_child("no breakpoints");
}

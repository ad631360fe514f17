//! Children of a process whose threads hold locks of the crate at nearly every moment. Each child does one thing and
//! ends; none hangs.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unsafe_code, reason = "forking is a call of C")]

mod common;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use common::{compute, in_a_child, scenario};
use shotclock::{
    Escalation, Lane, OffloadExt as _, Watch, WatchExt as _, Watchdog, allow_blocking,
};

/// The longest time of all children of one kind together.
const PATIENCE: Duration = Duration::from_secs(60);

/// The number of children of each kind.
const CHILDREN: usize = 60;

/// The number of children at once.
const ABREAST: usize = 20;

/// The objects that a child works with, made before the fork.
struct Bench {
    watchdog: Watchdog,
    watch: Watch,
    lane: Lane,
}

/// The actions of a child before its end.
type Deed = (&'static str, fn(&Bench));

const DEEDS: [Deed; 16] = [
    ("exit", |_| ()),
    ("allow_blocking", |_| {
        drop(allow_blocking("a test", Duration::from_secs(1)));
    }),
    ("poll", |bench| {
        for _ in 0..10 {
            let polled = pin!(async { compute(Duration::from_micros(10)) }.watched(&bench.watch));
            assert!(
                polled
                    .poll(&mut Context::from_waker(Waker::noop()))
                    .is_ready()
            );
        }
    }),
    ("enter", |bench| {
        for _ in 0..10 {
            let _entered = bench.watch.enter();
            compute(Duration::from_micros(10));
        }
    }),
    ("drop of a future", |bench| {
        let mut future = Box::pin(std::future::pending::<()>().watched(&bench.watch));
        assert!(
            future
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
    }),
    ("statistics", |bench| {
        let stats = bench.watch.stats();
        assert!(stats.slow_polls <= stats.polls);
        assert!(!bench.watchdog.snapshot().to_string().is_empty());
        let _ = bench.lane.stats();
        let _ = bench.watchdog.culprits().to_string();
    }),
    ("health", |bench| {
        let _ = bench.watchdog.health().to_string();
    }),
    ("capabilities", |bench| {
        assert!(!bench.watchdog.capabilities().stacks.works());
    }),
    ("flush", |bench| {
        assert!(!bench.watchdog.flush(Duration::MAX));
    }),
    ("offload", |_| {
        let offloaded = block_on(shotclock::offload(|| 7));
        assert_eq!(offloaded.unwrap(), 7);
    }),
    ("lane", |bench| {
        assert_eq!(block_on(bench.lane.try_run(|| 7)).unwrap(), 7);
        assert_eq!(block_on(async { 7 }.offloaded(&bench.lane)).unwrap(), 7);
        block_on(bench.lane.close());
    }),
    ("watch", |bench| {
        let new = bench.watchdog.watch("new");
        drop(new.enter());
        assert_eq!(new.stats().polls, 1);
    }),
    ("build", |_| {
        assert!(Watchdog::builder().build().unwrap_err().is_thread_refused());
        assert!(shotclock::Watchdog::global().is_err());
    }),
    ("guard", |bench| {
        let runtime = runtime();
        assert!(!bench.watchdog.guard("forked", runtime.handle()).is_active());
    }),
    ("yield_after", |_| {
        block_on(async {
            let mut pace = shotclock::yield_after(Duration::from_millis(1));
            for _ in 0..1_000 {
                pace.tick().await;
            }
        });
    }),
    // In place of `exit`, the only thread of the child ends.
    ("end of a thread", |_| ()),
];

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

fn block_on<F: Future>(future: F) -> F::Output {
    runtime().block_on(future)
}

/// Runs the scenario of a child process. It is no test by itself.
#[test]
fn child() {
    if scenario().as_deref() == Some("forks") {
        forks();
    }
}

#[test]
fn forked_children_of_a_busy_process_do_not_hang() {
    in_a_child("forks");
}

fn forks() {
    let watchdog = Watchdog::builder()
        .without_tracing()
        .budget(Duration::from_millis(1))
        .reports_per_second(u32::MAX)
        .escalate(Duration::from_millis(1), Escalation::Stacks)
        .build()
        .unwrap();
    let watch = watchdog.watch("forks").with_budget(Duration::from_nanos(1));
    let lane = Lane::builder("forks").limit(1).build().unwrap();
    let bench = Bench {
        watchdog,
        watch,
        lane,
    };
    let done = Arc::<AtomicBool>::default();
    let mut hung = BTreeMap::new();
    std::thread::scope(|scope| {
        let _done = SetWhenDropped(&done);
        scope.spawn(|| keep_the_locks_busy(&bench, &done));
        scope.spawn(|| keep_the_lanes_busy(&bench, &done));
        for deed in &DEEDS {
            let count = (0..CHILDREN).step_by(ABREAST).map(|_| {
                // In a poll that the sentinel scans all the time.
                hung_of(on_a_thread_of_c(|| {
                    let _poll = bench.watch.enter();
                    let children = (0..ABREAST).map_while(|_| fork(&bench, deed));
                    children.collect::<Vec<_>>()
                }))
            });
            hung.insert(deed.0, count.sum::<usize>());
        }
    });
    println!("{hung:?} of {CHILDREN} children of each kind hung");
    assert!(hung.values().all(|count| *count == 0), "{hung:?}");
}

/// Ends the other threads if a child fails.
struct SetWhenDropped<'d>(&'d AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Runs work on a thread that std did not start. At the end of a thread of std, std takes a lock, which another thread may hold
/// at a fork.
fn on_a_thread_of_c<T>(run: impl FnOnce() -> T) -> T {
    struct Work<F, T> {
        run: Option<F>,
        result: Option<T>,
    }
    extern "C" fn start<F: FnOnce() -> T, T>(work: *mut libc::c_void) -> *mut libc::c_void {
        // SAFETY: the thread that started this one waits for its end, and does not access the work before.
        let work = unsafe { &mut *work.cast::<Work<F, T>>() };
        work.result = work.run.take().map(|run| run());
        std::ptr::null_mut()
    }
    fn start_of<F: FnOnce() -> T, T>(
        _: &Work<F, T>,
    ) -> extern "C" fn(*mut libc::c_void) -> *mut libc::c_void {
        start::<F, T>
    }
    let mut work = Work {
        run: Some(run),
        result: None,
    };
    let start = start_of(&work);
    // SAFETY: the thread is joined before the work is dropped.
    unsafe {
        let mut thread = std::mem::zeroed();
        let work = (&raw mut work).cast();
        assert_eq!(
            libc::pthread_create(&mut thread, std::ptr::null(), start, work),
            0
        );
        assert_eq!(libc::pthread_join(thread, std::ptr::null_mut()), 0);
    }
    work.result.unwrap()
}

/// Takes and releases locks all the time.
fn keep_the_locks_busy(bench: &Bench, done: &AtomicBool) {
    let Bench {
        watchdog, watch, ..
    } = bench;
    while !done.load(Relaxed) {
        let _ = (watch.stats(), watchdog.snapshot(), watchdog.health());
        let _ = (watchdog.watch("forks"), watchdog.culprits());
        // A thread that ends returns its slot.
        std::thread::scope(|scope| {
            scope.spawn(|| drop(watch.enter()));
        });
    }
}

fn keep_the_lanes_busy(bench: &Bench, done: &AtomicBool) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    while !done.load(Relaxed) {
        runtime.block_on(async {
            let both = bench.lane.run(|| 7).await;
            assert_eq!(both.unwrap() + shotclock::offload(|| 7).await.unwrap(), 14);
            assert_eq!(async { 7 }.offloaded(&bench.lane).await.unwrap(), 7);
        });
    }
}

/// Returns the process id of the child. `None` in a child whose thread must end.
fn fork(bench: &Bench, (name, deed): &Deed) -> Option<libc::pid_t> {
    compute(Duration::from_micros(200));
    // SAFETY: the test is about the actions of the child, which ends itself.
    match unsafe { libc::fork() } {
        0 if *name == "end of a thread" => None,
        0 => {
            let is_well = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| deed(bench)));
            // SAFETY: it ends the process after the destructors of this thread's thread-locals.
            unsafe { libc::exit(if is_well.is_ok() { 0 } else { 1 }) }
        }
        child => {
            assert!(child > 0);
            Some(child)
        }
    }
}

/// Returns the number of children that do not end in time or fail. Kills the former.
fn hung_of(mut children: Vec<libc::pid_t>) -> usize {
    let end = Instant::now() + PATIENCE;
    let mut failed = 0;
    while !children.is_empty() && Instant::now() < end {
        children.retain(|child| {
            let mut status = 0;
            // SAFETY: the status is there to be written.
            let ended = unsafe { libc::waitpid(*child, &mut status, libc::WNOHANG) };
            failed += usize::from(ended != 0 && status != 0);
            ended == 0
        });
        std::thread::sleep(Duration::from_millis(1));
    }
    for child in &children {
        // SAFETY: numbers only, and no status is asked for.
        unsafe {
            libc::kill(*child, libc::SIGKILL);
            libc::waitpid(*child, std::ptr::null_mut(), 0);
        }
    }
    children.len() + failed
}

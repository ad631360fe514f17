//! What a guard costs while a runtime is idle and while it is busy, and how soon it names a worker that is
//! blocked. Not a contest: figures of its own threads, as the scheduler accounts them, and times of one run.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use shotclock::{Phase, StuckWorker, Watchdog};
use tokio::runtime::Runtime;
use tokio::task::{JoinSet, yield_now};

const WORKERS: usize = 4;
const BLOCKS: usize = 40;
/// A budget and a half.
const ALLOWED: Duration = Duration::from_millis(150);
const BLOCKED: Duration = Duration::from_millis(300);
const SECONDS: u64 = 10;
const STORMS: usize = 21;
const STORM: Duration = Duration::from_secs(1);
const TASKS: usize = 64;

fn runtime(workers: usize) -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let built = builder.worker_threads(workers).enable_all().build();
    built.expect("a runtime can be built")
}

fn threads_of_ours() -> Vec<PathBuf> {
    let threads = fs::read_dir("/proc/self/task").expect("this bench is for Linux");
    let threads = threads.filter_map(|thread| Some(thread.ok()?.path()));
    let is_ours = |thread: &PathBuf| {
        let name = fs::read_to_string(thread.join("comm"));
        name.is_ok_and(|name| {
            ["shotclock-watch", "shotclock-ticks", "shotclock-probe"].contains(&name.trim())
        })
    };
    threads.filter(is_ours).collect()
}

fn cpu_time(threads: &[PathBuf]) -> Duration {
    let of = |thread: &Path| {
        let account = fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
        let nanos = account.split(' ').next().and_then(|n| n.parse().ok());
        Duration::from_nanos(nanos.unwrap_or_default())
    };
    threads.iter().map(|thread| of(thread)).sum()
}

/// Returns the share of a core that the threads use during `run`, in percent.
fn share(threads: &[PathBuf], run: impl FnOnce()) -> f64 {
    let (before, start) = (cpu_time(threads), Instant::now());
    run();
    let used = cpu_time(threads) - before;
    used.as_secs_f64() / start.elapsed().as_secs_f64() * 100.0
}

/// How many polls tasks make that do nothing but yield.
fn storm(runtime: &Runtime) -> u64 {
    runtime.block_on(async {
        let end = Instant::now() + STORM;
        let mut tasks = JoinSet::new();
        for _ in 0..TASKS {
            tasks.spawn(async move {
                let mut polls = 0;
                while Instant::now() < end {
                    yield_now().await;
                    polls += 1;
                }
                polls
            });
        }
        tasks.join_all().await.into_iter().sum()
    })
}

fn median<T: Ord + Copy>(mut values: Vec<T>) -> T {
    values.sort();
    values[values.len() / 2]
}

fn main() {
    // `cargo bench` passes arguments that are meant for criterion.
    let (tx, reports) = mpsc::channel();
    let report = move |stuck: &StuckWorker| {
        let _ = tx.send((Instant::now(), stuck.clone()));
    };
    let builder = Watchdog::builder()
        .without_tracing()
        .on_stuck_worker(report);
    let watchdog = builder.build().expect("the settings are good");
    println!("{}\n", watchdog.capabilities());

    // In turns, because the machine is not the same from one second to the next. The sentinel sleeps as long as
    // nothing is guarded, so the guard comes and goes.
    let plain = runtime(2);
    let ratios = (0..STORMS).map(|_| {
        let without = storm(&plain);
        let guard = watchdog.guard("storm", plain.handle());
        // Past the beginning, when the workers are called together.
        thread::sleep(Duration::from_millis(300));
        let with = storm(&plain);
        drop(guard);
        (with as f64 / without as f64 * 1e4) as u64
    });
    let ratio = median(ratios.collect()) as f64 / 1e4;
    println!("polls in a yield storm on 2 workers, guarded / not: {ratio:.3} (median of {STORMS})");

    let runtime = runtime(WORKERS);
    let _guard = watchdog.guard("bench", runtime.handle());
    thread::sleep(Duration::from_secs(1));
    let ours = threads_of_ours();
    let idle = share(&ours, || thread::sleep(Duration::from_secs(SECONDS)));
    println!("sentinel and probes, {WORKERS} idle workers, {SECONDS} s: {idle:.2} % of a core");

    println!(
        "a worker of {WORKERS} in one poll of {BLOCKED:?}, {BLOCKS} times, was named with its stack after"
    );
    for (name, hold) in [
        ("blocked", thread::sleep as fn(Duration)),
        ("computing", compute),
    ] {
        let late = late(&runtime, &reports, hold);
        let within = late.iter().filter(|late| **late <= ALLOWED).count();
        let (middle, worst) = (median(late.clone()), late.iter().max().copied());
        let worst = worst.unwrap_or_default();
        // What the host steals is not held against a worker, so one that computes may be named later.
        println!(
            "goal, {name}: {middle:.1?} in the median, {within} of {BLOCKS} within {ALLOWED:?}, {worst:.1?} at most"
        );
    }
}

fn compute(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

/// How long after its beginning a poll is named that holds its worker.
fn late(
    runtime: &Runtime,
    reports: &mpsc::Receiver<(Instant, StuckWorker)>,
    hold: fn(Duration),
) -> Vec<Duration> {
    let mut late = Vec::new();
    for _ in 0..BLOCKS {
        let (begun, begins) = mpsc::channel();
        let task = runtime.spawn(async move {
            let _ = begun.send(Instant::now());
            hold(BLOCKED);
        });
        let begun = begins.recv().expect("the task runs");
        let (told, stuck) = loop {
            let (told, stuck) = reports.recv().expect("it is reported");
            if stuck.phase == Phase::Running && told > begun {
                break (told, stuck);
            }
        };
        let stack = stuck.stack.as_ref().map(ToString::to_string);
        assert!(
            stack.is_some_and(|stack| stack.contains("guard::")),
            "{stuck}"
        );
        late.push(told - begun);
        runtime.block_on(task).expect("it ends");
        while reports
            .recv()
            .is_ok_and(|(_, stuck)| stuck.phase != Phase::Finished)
        {}
    }
    late
}

//! The delay of other tasks: the period of a loop that sleeps for 1 ms. It runs beside closures that flood a lane, and beside
//! tasks that block, plain and contained.
//!
//! No contest of figures that are near each other: each line is run a few times, and the median of
//! the runs is shown.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use shotclock::{Lane, WatchExt as _, Watchdog};
use shotclock_peers::is_measuring;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

const RUNS: usize = 5;
const RUN: Duration = Duration::from_secs(3);
/// Of each run, not measured: a contained watch has to have learnt.
const WARM_UP: Duration = Duration::from_millis(500);

/// Percentiles of one run.
#[derive(Clone, Copy)]
struct Lag {
    p50: Duration,
    p99: Duration,
}

fn two_workers() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build();
    runtime.expect("a runtime of two workers")
}

/// How long each turn of the loop takes.
async fn heartbeat() -> Lag {
    let (mut turns, begun) = (Vec::new(), Instant::now());
    while begun.elapsed() < RUN {
        let start = Instant::now();
        tokio::time::sleep(Duration::from_millis(1)).await;
        if begun.elapsed() > WARM_UP {
            turns.push(start.elapsed());
        }
    }
    turns.sort_unstable();
    let at = |share: f64| turns[(turns.len() as f64 * share) as usize];
    Lag {
        p50: at(0.5),
        p99: at(0.99),
    }
}

/// The medians over some runs, each on a runtime of its own, beside what `disturb` starts there.
fn beside(what: &str, disturb: impl Fn(&Runtime, &Arc<AtomicBool>) -> Vec<JoinHandle<()>>) -> Lag {
    let mut runs: Vec<_> = (0..RUNS)
        .map(|_| {
            let (runtime, stop) = (two_workers(), Arc::new(AtomicBool::new(false)));
            let disturbers = disturb(&runtime, &stop);
            let lag = runtime.block_on(runtime.spawn(heartbeat()));
            stop.store(true, Relaxed);
            for disturber in disturbers {
                runtime.block_on(disturber).expect("no panic");
            }
            lag.expect("no panic")
        })
        .collect();
    let mut median = |of: fn(&Lag) -> Duration| {
        runs.sort_by_key(of);
        of(&runs[RUNS / 2])
    };
    let lag = Lag {
        p50: median(|lag| lag.p50),
        p99: median(|lag| lag.p99),
    };
    println!("{what:52} {:>8.1?} {:>8.1?}", lag.p50, lag.p99);
    lag
}

fn heading(what: &str) {
    println!("\n{what:52} {:>8} {:>8}", "p50", "p99");
}

fn goal(text: &str, measured: f64, limit: f64) {
    let outcome = if measured <= limit { "met" } else { "missed" };
    println!("goal: {text}: {measured:.2}, at most {limit:.2}: {outcome}");
}

fn ratio(one: Lag, other: Lag) -> f64 {
    one.p99.as_secs_f64() / other.p99.as_secs_f64()
}

fn compute_for(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        black_box((0..1_000u64).fold(0, |sum, i| black_box(sum + i)));
    }
}

// Closures -----------------------------------------------------------------------------------------

/// As many at once as a burst of requests brings.
const FLOOD: usize = 64;
const CLOSURE: Duration = Duration::from_millis(20);

fn flood_a_lane(lane: &Lane, runtime: &Runtime, stop: &Arc<AtomicBool>) -> Vec<JoinHandle<()>> {
    let flood = |_| {
        let (lane, stop) = (lane.clone(), Arc::clone(stop));
        runtime.spawn(async move {
            while !stop.load(Relaxed) {
                lane.run(|| compute_for(CLOSURE)).await.ok();
            }
        })
    };
    (0..FLOOD).map(flood).collect()
}

fn flood_the_pool(runtime: &Runtime, stop: &Arc<AtomicBool>) -> Vec<JoinHandle<()>> {
    let flood = |_| {
        let stop = Arc::clone(stop);
        runtime.spawn(async move {
            while !stop.load(Relaxed) {
                let closure = tokio::task::spawn_blocking(|| compute_for(CLOSURE));
                closure.await.ok();
            }
        })
    };
    (0..FLOOD).map(flood).collect()
}

fn closures() {
    let lane = |limit| {
        let lane = Lane::builder(format!("limit {limit}")).limit(limit).build();
        lane.expect("a lane")
    };
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    let (all, spare) = (lane(cores), lane((cores - 1).max(1)));
    heading("a 1 ms heartbeat, 64 closures of 20 ms flooding in");
    let idle = beside("nothing beside it", |_, _| Vec::new());
    let on_all = beside("a lane, limit: every core", |runtime, stop| {
        flood_a_lane(&all, runtime, stop)
    });
    let with_spare = beside("a lane, limit: every core but one", |runtime, stop| {
        flood_a_lane(&spare, runtime, stop)
    });
    beside("spawn_blocking", flood_the_pool);
    goal(
        "p99 with a lane of every core / idle",
        ratio(on_all, idle),
        2.0,
    );
    goal(
        "p99 with a core to spare / idle",
        ratio(with_spare, idle),
        2.0,
    );
}

// Tasks --------------------------------------------------------------------------------------------

#[derive(Clone, Copy)]
enum Way {
    /// Sleeps for 40 ms of every 60.
    Blocking,
    /// Computes for 20 ms of every 40.
    Spinning,
}

impl Way {
    fn misbehave(self) -> Duration {
        match self {
            Way::Blocking => thread::sleep(Duration::from_millis(40)),
            Way::Spinning => compute_for(Duration::from_millis(20)),
        }
        Duration::from_millis(20)
    }
}

fn slow_tasks(watchdog: &Watchdog, way: Way, count: usize, contained: bool) -> Lag {
    let name = match way {
        Way::Blocking => "blocking",
        Way::Spinning => "spinning",
    };
    let kind = if contained { "contained" } else { "plain" };
    let watch = watchdog.watch(format!("{count} {name} {kind}"));
    let watch = if contained { watch.contained() } else { watch };
    beside(watch.name(), |runtime, stop| {
        let spawn = |_| {
            let stop = Arc::clone(stop);
            let task = async move {
                while !stop.load(Relaxed) {
                    tokio::time::sleep(way.misbehave()).await;
                }
            };
            runtime.spawn(task.watched(&watch))
        };
        (0..count).map(spawn).collect()
    })
}

fn tasks() {
    let watchdog = Watchdog::builder().without_tracing().build();
    let watchdog = watchdog.expect("a watchdog");
    heading("a 1 ms loop, slow tasks beside it");
    for way in [Way::Blocking, Way::Spinning] {
        for count in [4, 16] {
            let plain = slow_tasks(&watchdog, way, count, false);
            let contained = slow_tasks(&watchdog, way, count, true);
            if matches!(way, Way::Blocking) {
                goal("p99 contained / plain", ratio(contained, plain), 0.1);
            }
        }
    }
}

fn main() {
    if is_measuring() {
        closures();
        tasks();
    }
}

//! What the lane around a closure costs, against `spawn_blocking` and `tokio-rayon` without one: with
//! one in flight and with a thousand, of closures that do nothing and of closures that compute for a
//! little.

use std::future::Future;
use std::hint::black_box;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use futures::future::join_all;
use rayon::{ThreadPool, ThreadPoolBuilder};
use shotclock::Lane;
use shotclock_peers::Contest;
use tokio::runtime::{Builder, Runtime};
use tokio_rayon::AsyncThreadPool as _;

const BARE: &str = "tokio spawn_blocking";
const OFFLOAD: &str = "shotclock offload";
const LANE: &str = "shotclock lane.run, queue of 256";
const TOKIO_RAYON: &str = "tokio-rayon";
const RAYON_LANE: &str = "shotclock lane.run on rayon";

/// How much a closure has to do.
type Work = fn() -> u64;

fn nothing() -> u64 {
    black_box(1)
}

/// Some 20 µs, by the number of steps and not by the clock, so that it is the same for both.
///
/// No black box inside: a value that goes through memory takes a time of its own on some
/// processors, from one call to the next.
fn compute() -> u64 {
    let step = |x: u64, _| x.wrapping_mul(6_364_136_223_846_793_005).rotate_left(17);
    black_box((0..16_000).fold(black_box(1), step))
}

async fn bare(work: Work) -> u64 {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

async fn offload(work: Work) -> u64 {
    shotclock::offload(work).await.expect("no panic")
}

async fn lane(work: Work) -> u64 {
    static LANE: LazyLock<Lane> = LazyLock::new(|| {
        let lane = Lane::builder("bench").queue(256).build();
        lane.expect("a lane")
    });
    LANE.run(work).await.expect("no panic")
}

/// One pool for both.
static POOL: LazyLock<Arc<ThreadPool>> = LazyLock::new(|| {
    let pool = ThreadPoolBuilder::new().build();
    Arc::new(pool.expect("a pool"))
});

async fn tokio_rayon(work: Work) -> u64 {
    POOL.spawn_fifo_async(work).await
}

async fn rayon_lane(work: Work) -> u64 {
    static LANE: LazyLock<Lane> = LazyLock::new(|| {
        let lane = Lane::builder("bench on rayon").rayon_pool(Arc::clone(&POOL));
        lane.build().expect("a lane")
    });
    LANE.run(work).await.expect("no panic")
}

async fn one_by_one<F: Future<Output = u64>>(one: fn(Work) -> F, work: Work, turns: u64) {
    for _ in 0..turns {
        black_box(one(work).await);
    }
}

async fn a_thousand_at_once<F: Future<Output = u64>>(one: fn(Work) -> F, work: Work, turns: u64) {
    for _ in 0..turns {
        black_box(join_all((0..1_000).map(|_| one(work))).await);
    }
}

/// The turns that `all` does, in a task, so that it is a worker that asks and waits.
fn run<F>(runtime: &Runtime, all: impl Fn(u64) -> F) -> impl FnMut(u64) -> Duration
where
    F: Future<Output = ()> + Send + 'static,
{
    move |turns| {
        let start = Instant::now();
        let task = runtime.spawn(all(turns));
        runtime.block_on(task).expect("no panic");
        start.elapsed()
    }
}

fn two_workers() -> Runtime {
    let runtime = Builder::new_multi_thread().worker_threads(2).build();
    runtime.expect("a runtime of two workers")
}

/// Runs on one runtime. Nearly all of the time is the wake-up of a thread, which depends on its core. So all contenders use the
/// same threads.
fn one_in_flight(title: &'static str, work: Work) {
    let runtime = two_workers();
    let contest = Contest::new(title, "closure", 1, 200)
        .contender(BARE, run(&runtime, move |n| one_by_one(bare, work, n)))
        .contender(
            OFFLOAD,
            run(&runtime, move |n| one_by_one(offload, work, n)),
        )
        .contender(LANE, run(&runtime, move |n| one_by_one(lane, work, n)));
    against_spawn_blocking(contest);
    Contest::new(title, "closure", 1, 200)
        .contender(
            TOKIO_RAYON,
            run(&runtime, move |n| one_by_one(tokio_rayon, work, n)),
        )
        .contender(
            RAYON_LANE,
            run(&runtime, move |n| one_by_one(rayon_lane, work, n)),
        )
        .goal("lane on rayon / tokio-rayon", 1.1, |rounds| {
            rounds.ratio(RAYON_LANE, TOKIO_RAYON)
        })
        .run();
}

/// On a runtime each: the bare one starts 512 threads, which are not for the others to inherit.
fn a_thousand_in_flight(title: &'static str, work: Work) {
    let runtimes = [two_workers(), two_workers(), two_workers()];
    let contest = Contest::new(title, "closure", 1_000, 1)
        .contender(
            BARE,
            run(&runtimes[0], move |n| a_thousand_at_once(bare, work, n)),
        )
        .contender(
            OFFLOAD,
            run(&runtimes[1], move |n| a_thousand_at_once(offload, work, n)),
        )
        .contender(
            LANE,
            run(&runtimes[2], move |n| a_thousand_at_once(lane, work, n)),
        );
    against_spawn_blocking(contest);
    let runtime = two_workers();
    Contest::new(title, "closure", 1_000, 1)
        .contender(
            TOKIO_RAYON,
            run(&runtime, move |n| a_thousand_at_once(tokio_rayon, work, n)),
        )
        .contender(
            RAYON_LANE,
            run(&runtime, move |n| a_thousand_at_once(rayon_lane, work, n)),
        )
        .goal("lane on rayon / tokio-rayon", 1.1, |rounds| {
            rounds.ratio(RAYON_LANE, TOKIO_RAYON)
        })
        .run();
}

fn against_spawn_blocking(contest: Contest<'_>) {
    contest
        .goal("offload / spawn_blocking", 1.15, |rounds| {
            rounds.ratio(OFFLOAD, BARE)
        })
        .goal("lane.run / spawn_blocking", 1.15, |rounds| {
            rounds.ratio(LANE, BARE)
        })
        .run();
}

fn main() {
    one_in_flight("offload, 1 in flight, empty", nothing);
    one_in_flight("offload, 1 in flight, 20 µs", compute);
    a_thousand_in_flight("offload, 1000 in flight, empty", nothing);
    a_thousand_in_flight("offload, 1000 in flight, 20 µs", compute);
}

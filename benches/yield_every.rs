//! What it costs a long loop to be polite: a million short iterations that give the worker back
//! after every ten thousand.

use std::future::Future;
use std::hint::black_box;
use std::time::{Duration, Instant};

use shotclock_peers::Contest;
use tokio::runtime::{Builder, Runtime};
use tokio::task::{consume_budget, yield_now};

const BY_HAND: &str = "if i % n == 0 { yield_now() }";
const YIELD_EVERY: &str = "shotclock yield_every(n)";
const CONSUME_BUDGET: &str = "consume_budget() each time";
const NEVER: &str = "no yield at all";

const ITERATIONS: u64 = 1_000_000;
const N: u64 = 10_000;

/// One iteration. The black box keeps the sum from being computed in closed form.
#[inline]
fn add_square(sum: u64, i: u64) -> u64 {
    let i = black_box(i);
    sum.wrapping_add(i.wrapping_mul(i))
}

async fn by_hand() -> u64 {
    let mut sum = 0;
    for i in 0..ITERATIONS {
        sum = add_square(sum, i);
        if i % N == 0 {
            yield_now().await;
        }
    }
    sum
}

async fn with_yield_every() -> u64 {
    let mut sum = 0;
    let mut pace = shotclock::yield_every(N);
    for i in 0..ITERATIONS {
        sum = add_square(sum, i);
        pace.tick().await;
    }
    sum
}

async fn with_consume_budget() -> u64 {
    let mut sum = 0;
    for i in 0..ITERATIONS {
        sum = add_square(sum, i);
        consume_budget().await;
    }
    sum
}

async fn without_a_yield() -> u64 {
    (0..ITERATIONS).fold(0, add_square)
}

fn run<F: Future<Output = u64>>(
    runtime: &Runtime,
    work: impl Fn() -> F,
) -> impl FnMut(u64) -> Duration {
    move |turns| {
        let start = Instant::now();
        for _ in 0..turns {
            black_box(runtime.block_on(work()));
        }
        start.elapsed()
    }
}

fn main() {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime of the current thread");
    Contest::new("yield_every", "iteration", ITERATIONS, 2)
        .contender(BY_HAND, run(&runtime, by_hand))
        .contender(YIELD_EVERY, run(&runtime, with_yield_every))
        .contender(CONSUME_BUDGET, run(&runtime, with_consume_budget))
        .contender(NEVER, run(&runtime, without_a_yield))
        .goal("yield_every / by hand", 1.0, |rounds| {
            rounds.ratio(YIELD_EVERY, BY_HAND)
        })
        .run();
}

//! What it costs a long loop to be polite, by count and by time: a million short iterations that
//! give the worker back now and then. Then how well it is kept to: polls of a loop whose iterations
//! suddenly cost a thousand times as much, and of twenty siblings in one task.

use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::join_all;
use shotclock::coop::{Pace, Rule};
use shotclock::{WatchExt as _, Watchdog};
use shotclock_peers::{Contest, is_measuring};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{consume_budget, yield_now};

const BY_HAND: &str = "if i % n == 0 { yield_now() }";
const YIELD_EVERY: &str = "shotclock yield_every(n)";
const YIELD_AFTER: &str = "shotclock yield_after(500 µs)";
const CONSUME_BUDGET: &str = "consume_budget() each time";
const ITEM_BUDGET: &str = "a budget of 128 items";
const NEVER: &str = "no yield at all";

const ITERATIONS: u64 = 1_000_000;
const N: u64 = 10_000;
const SLICE: Duration = Duration::from_micros(500);

/// One iteration. The black box keeps the sum from being computed in closed form.
#[inline]
fn add_square(sum: u64, i: u64) -> u64 {
    let i = black_box(i);
    sum.wrapping_add(i.wrapping_mul(i))
}

/// What stands after each iteration.
trait Pass {
    fn pass(&mut self) -> impl Future<Output = ()> + Send;
}

impl<R: Rule + Send> Pass for Pace<R> {
    #[inline]
    async fn pass(&mut self) {
        self.tick().await;
    }
}

struct TokioBudget;

impl Pass for TokioBudget {
    #[inline]
    async fn pass(&mut self) {
        consume_budget().await;
    }
}

/// Counts like DataFusion: a number of items, and then tokio's own yield.
struct ItemBudget(u8);

impl Pass for ItemBudget {
    #[inline]
    async fn pass(&mut self) {
        self.0 -= 1;
        if self.0 == 0 {
            self.0 = 128;
            yield_now().await;
        }
    }
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

async fn with_pace(mut pace: Pace<impl Rule>) -> u64 {
    let mut sum = 0;
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

async fn with_item_budget() -> u64 {
    let (mut sum, mut budget) = (0, ItemBudget(128));
    for i in 0..ITERATIONS {
        sum = add_square(sum, i);
        budget.pass().await;
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

fn cost(runtime: &Runtime) {
    let yield_every = || with_pace(shotclock::yield_every(N));
    let yield_after = || with_pace(shotclock::yield_after(SLICE));
    Contest::new("yield_every", "iteration", ITERATIONS, 2)
        .contender(BY_HAND, run(runtime, by_hand))
        .contender(YIELD_EVERY, run(runtime, yield_every))
        .contender(YIELD_AFTER, run(runtime, yield_after))
        .contender(CONSUME_BUDGET, run(runtime, with_consume_budget))
        .contender(ITEM_BUDGET, run(runtime, with_item_budget))
        .contender(NEVER, run(runtime, without_a_yield))
        .goal("yield_every / by hand", 1.0, |rounds| {
            rounds.ratio(YIELD_EVERY, BY_HAND)
        })
        .goal("yield_after / by hand", 1.02, |rounds| {
            rounds.ratio(YIELD_AFTER, BY_HAND)
        })
        .run();
}

// How long the polls are ---------------------------------------------------------------------------

/// Notes how long each poll takes.
struct Timed<F> {
    inner: F,
    lengths: Arc<Mutex<Vec<Duration>>>,
}

impl<F: Future + Unpin> Future for Timed<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let start = Instant::now();
        let polled = Pin::new(&mut self.inner).poll(cx);
        self.lengths.lock().expect("whole").push(start.elapsed());
        polled
    }
}

/// The lengths of the polls of a watched task, in order.
fn polls_of(
    runtime: &Runtime,
    watchdog: &Watchdog,
    work: impl Future<Output = ()> + Send + 'static,
) -> Vec<Duration> {
    let lengths = Arc::new(Mutex::new(Vec::new()));
    let watch = watchdog.watch("bench").with_budget(Duration::MAX);
    let timed = Timed {
        inner: Box::pin(work.watched(&watch)),
        lengths: Arc::clone(&lengths),
    };
    runtime.block_on(runtime.spawn(timed)).expect("no panic");
    let mut lengths = std::mem::take(&mut *lengths.lock().expect("whole"));
    lengths.sort_unstable();
    lengths
}

/// Some 50 ns; the number of steps and not the clock says how much.
fn work(units: u64) {
    let step = |x: u64, _| black_box(x).wrapping_mul(6_364_136_223_846_793_005);
    black_box((0..units * 20).fold(1, step));
}

/// Half way, an iteration begins to cost a thousand times as much.
async fn jump(mut pass: impl Pass) {
    for i in 0..40_000 {
        work(if i < 20_000 { 1 } else { 1_000 });
        pass.pass().await;
    }
}

async fn siblings<P: Pass>(pass: impl Fn() -> P) {
    let sibling = || async {
        let mut pass = pass();
        for _ in 0..600_000 {
            work(1);
            pass.pass().await;
        }
    };
    join_all((0..20).map(|_| sibling())).await;
}

fn per_unit(units: u64) -> Duration {
    let mut times: Vec<_> = (0..101)
        .map(|_| {
            let start = Instant::now();
            work(units);
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[50]
}

fn print_row(what: &str, lengths: &[Duration]) -> Duration {
    let at = |share: f64| lengths[(lengths.len() as f64 * share) as usize];
    let longest = lengths[lengths.len() - 1];
    println!(
        "{what:34} {:>7} {:>10.1?} {:>10.1?} {:>10.1?}",
        lengths.len(),
        at(0.5),
        at(0.99),
        longest
    );
    at(0.99)
}

fn goal(text: &str, measured: Duration, limit: Duration) {
    let outcome = if measured <= limit { "met" } else { "missed" };
    println!("goal: {text}: {measured:.1?}, at most {limit:.1?}: {outcome}");
}

fn bounds(runtime: &Runtime) {
    let watchdog = Watchdog::builder().without_tracing().build();
    let watchdog = watchdog.expect("a watchdog");
    let yield_after = || shotclock::yield_after(SLICE);
    let yield_every = || shotclock::yield_every(N);
    let polls = |work: Pin<Box<dyn Future<Output = ()> + Send>>| polls_of(runtime, &watchdog, work);

    let dear = per_unit(1_000);
    println!(
        "\nan iteration that grows from {:.1?} to {dear:.1?}: the polls",
        per_unit(1)
    );
    println!(
        "{:34} {:>7} {:>10} {:>10} {:>10}",
        "", "polls", "p50", "p99", "longest"
    );
    let p99 = print_row(YIELD_AFTER, &polls(Box::pin(jump(yield_after()))));
    print_row(YIELD_EVERY, &polls(Box::pin(jump(yield_every()))));
    print_row(CONSUME_BUDGET, &polls(Box::pin(jump(TokioBudget))));
    print_row(ITEM_BUDGET, &polls(Box::pin(jump(ItemBudget(128)))));
    goal("p99 of the polls", p99, SLICE * 3 / 2 + dear);

    println!(
        "\n20 siblings under join_all, iterations of {:.1?}: the polls of the task",
        per_unit(1)
    );
    println!(
        "{:34} {:>7} {:>10} {:>10} {:>10}",
        "", "polls", "p50", "p99", "longest"
    );
    let p99 = print_row(YIELD_AFTER, &polls(Box::pin(siblings(yield_after))));
    print_row(YIELD_EVERY, &polls(Box::pin(siblings(yield_every))));
    print_row(CONSUME_BUDGET, &polls(Box::pin(siblings(|| TokioBudget))));
    print_row(ITEM_BUDGET, &polls(Box::pin(siblings(|| ItemBudget(128)))));
    goal("p99 of the polls", p99, SLICE + per_unit(1));
}

fn main() {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime of the current thread");
    cost(&runtime);
    if is_measuring() {
        bounds(&runtime);
    }
}

//! What a watched poll costs where workers share a watch: 64 tasks on 2 workers do nothing but
//! yield. Counters that two threads write to are dear here, and nowhere else.

use std::future::Future;
use std::time::{Duration, Instant};

use shotclock::{Timing, WatchExt as _, Watchdog};
use shotclock_peers::Contest;
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinSet, yield_now};
use tokio_metrics::TaskMonitor;

const BARE: &str = "bare";
const WATCHED: &str = "shotclock, Timing::Exact";
const TICKED: &str = "shotclock, Timing::Ticked";
const MONITOR: &str = "tokio-metrics TaskMonitor";

const TASKS: u64 = 64;
/// The yields of each task in one turn.
const YIELDS: u64 = 100;

async fn yield_often(times: u64) {
    for _ in 0..times {
        yield_now().await;
    }
}

/// The storm's tasks, each as `wrap` makes it of the number of its yields; until all are done.
fn storm<F>(runtime: &Runtime, wrap: impl Fn(u64) -> F) -> impl FnMut(u64) -> Duration
where
    F: Future<Output = ()> + Send + 'static,
{
    move |turns| {
        runtime.block_on(async {
            let start = Instant::now();
            let mut tasks = JoinSet::new();
            for _ in 0..TASKS {
                tasks.spawn(wrap(turns * YIELDS));
            }
            tasks.join_all().await;
            start.elapsed()
        })
    }
}

fn main() {
    let runtime = Builder::new_multi_thread().worker_threads(2).build();
    let runtime = runtime.expect("a runtime of two workers");
    let [exact, ticked] = [Timing::Exact, Timing::Ticked].map(|timing| {
        let builder = Watchdog::builder().without_tracing().timing(timing);
        let watchdog = builder.build().expect("a thread can be started");
        watchdog.watch("bench")
    });
    let monitor = TaskMonitor::new();
    let watched = |times| yield_often(times).watched(&exact);
    let by_ticks = |times| yield_often(times).watched(&ticked);
    let monitored = |times| monitor.instrument(yield_often(times));
    Contest::new("yield_storm", "poll", TASKS * YIELDS, 20)
        .contender(BARE, storm(&runtime, yield_often))
        .contender(WATCHED, storm(&runtime, watched))
        .contender(TICKED, storm(&runtime, by_ticks))
        .contender(MONITOR, storm(&runtime, monitored))
        .goal(
            "(watched - bare) / (TaskMonitor - bare)",
            1.0 / 15.0,
            |rounds| rounds.difference(WATCHED, BARE) / rounds.difference(MONITOR, BARE),
        )
        .goal("ticked - bare, ns of wall", 3.0, |rounds| {
            rounds.difference(TICKED, BARE)
        })
        .run();
}

//! Measures what a poll costs when threads share one watch: 1 thread, 2, and twice as many as there are cores. Each
//! thread counts in cells of its own, so the cost must not grow with the number of threads.
//!
//! The figure is the processor time of a poll. Wall time doubles where two threads share a core.

use std::future::{Future, poll_fn};
use std::hint::black_box;
use std::pin::pin;
use std::sync::Barrier;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use shotclock::{Timing, Watch, WatchExt as _, Watchdog};
use shotclock_peers::Contest;
use tokio_metrics::TaskMonitor;

const POLLS: u64 = 200_000;

/// How long this thread has had a processor.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn pending() -> impl Future<Output = ()> {
    poll_fn(|_| black_box(Poll::Pending))
}

/// Returns the mean time of `turns` polls on each of `threads` threads at once. Each thread has its future.
fn on_threads<F: Future<Output = ()>>(
    threads: usize,
    make: impl Fn() -> F + Sync,
) -> impl FnMut(u64) -> Duration {
    move |turns| {
        let all_are_there = Barrier::new(threads);
        let poll = || {
            let mut future = pin!(make());
            let mut cx = Context::from_waker(Waker::noop());
            all_are_there.wait();
            let start = cpu_time();
            for _ in 0..turns {
                let _ = black_box(black_box(future.as_mut()).poll(&mut cx));
            }
            cpu_time() - start
        };
        let sum: Duration = thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(poll)).collect();
            let taken = threads.into_iter().map(|thread| thread.join());
            taken.map(|taken| taken.expect("no panic")).sum()
        });
        sum / threads as u32
    }
}

fn watch(timing: Timing) -> Watch {
    let builder = Watchdog::builder().without_tracing().timing(timing);
    let watchdog = builder.build().expect("threads can be started");
    watchdog.watch("shared")
}

fn main() {
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    let [exact, ticked] = [Timing::Exact, Timing::Ticked].map(watch);
    let monitor = TaskMonitor::new();
    let exact = || pending().watched(&exact);
    let ticked = || pending().watched(&ticked);
    let monitored = || monitor.instrument(pending());
    let many = 2 * cores;
    println!("many: {many} threads on {cores} cores");
    Contest::new("sharing", "poll", 1, POLLS)
        .contender("1 thread, bare", on_threads(1, pending))
        .contender("2 threads, bare", on_threads(2, pending))
        .contender("many threads, bare", on_threads(many, pending))
        .contender("1 thread, exact", on_threads(1, exact))
        .contender("2 threads, exact", on_threads(2, exact))
        .contender("many threads, exact", on_threads(many, exact))
        .contender("1 thread, ticked", on_threads(1, ticked))
        .contender("2 threads, ticked", on_threads(2, ticked))
        .contender("many threads, ticked", on_threads(many, ticked))
        .contender("1 thread, TaskMonitor", on_threads(1, monitored))
        .contender("2 threads, TaskMonitor", on_threads(2, monitored))
        .contender("many threads, TaskMonitor", on_threads(many, monitored))
        .goal("exact - bare, 2 threads / 1", 1.1, |rounds| {
            rounds.difference("2 threads, exact", "2 threads, bare")
                / rounds.difference("1 thread, exact", "1 thread, bare")
        })
        .goal("exact - bare, many threads / 1", 1.1, |rounds| {
            rounds.difference("many threads, exact", "many threads, bare")
                / rounds.difference("1 thread, exact", "1 thread, bare")
        })
        .goal("ticked - bare, 2 threads / 1", 1.1, |rounds| {
            rounds.difference("2 threads, ticked", "2 threads, bare")
                / rounds.difference("1 thread, ticked", "1 thread, bare")
        })
        .goal("ticked - bare, many threads / 1", 1.1, |rounds| {
            rounds.difference("many threads, ticked", "many threads, bare")
                / rounds.difference("1 thread, ticked", "1 thread, bare")
        })
        .run();
}

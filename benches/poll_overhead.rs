//! What a watched poll costs on one thread: of a future that does next to nothing, polled by hand.
//!
//! The floor is two readings of the clock, without which a poll cannot be timed.

use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use shotclock::{WatchExt as _, Watchdog};
use shotclock_peers::Contest;
use tokio_metrics::TaskMonitor;

const BARE: &str = "bare";
const FLOOR: &str = "two raw clock readings";
const WATCHED: &str = "shotclock watched";
const MONITOR: &str = "tokio-metrics TaskMonitor";

/// Counts its polls and is never ready.
struct Counting {
    polls: u64,
}

impl Future for Counting {
    type Output = ();

    /// Not inlined, so that the call is there for each contender and nothing moves across it.
    #[inline(never)]
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        self.polls = black_box(self.polls + 1);
        Poll::Pending
    }
}

/// The least that any timing can do.
struct Floor {
    clock: quanta::Clock,
    inner: Counting,
}

impl Future for Floor {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let start = self.clock.raw();
        let polled = Pin::new(&mut self.inner).poll(cx);
        black_box(self.clock.raw().wrapping_sub(start));
        polled
    }
}

/// A runtime's call: it does not know what it polls.
#[inline(never)]
fn poll_once<F: Future<Output = ()>>(future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<()> {
    future.poll(cx)
}

fn poll_by_hand<F: Future<Output = ()>>(future: F) -> impl FnMut(u64) -> Duration {
    let mut future = Box::pin(future);
    move |polls| {
        let mut cx = Context::from_waker(Waker::noop());
        let start = Instant::now();
        for _ in 0..polls {
            let _ = black_box(poll_once(black_box(future.as_mut()), &mut cx));
        }
        start.elapsed()
    }
}

fn counting() -> Counting {
    Counting { polls: 0 }
}

fn main() {
    let watchdog = Watchdog::builder().without_tracing().build();
    let watch = watchdog.expect("a thread can be started").watch("bench");
    let monitor = TaskMonitor::new();
    let floor = Floor {
        clock: quanta::Clock::new(),
        inner: counting(),
    };
    Contest::new("poll_overhead", "poll", 1, 20_000)
        .contender(BARE, poll_by_hand(counting()))
        .contender(FLOOR, poll_by_hand(floor))
        .contender(WATCHED, poll_by_hand(counting().watched(&watch)))
        .contender(MONITOR, poll_by_hand(monitor.instrument(counting())))
        .goal("watched - floor, ns", 8.0, |rounds| {
            rounds.difference(WATCHED, FLOOR)
        })
        .goal("watched / TaskMonitor", 0.35, |rounds| {
            rounds.ratio(WATCHED, MONITOR)
        })
        .run();
}

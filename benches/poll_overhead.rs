//! What a watched poll costs on one thread: of a future that is polled by hand, and does next to
//! nothing, or computes for a little.
//!
//! The floor is two readings of the clock, without which a poll cannot be timed. Short polls and
//! longer ones are two contests, because a processor hides in the wait for the clock what it can,
//! and that differs.

use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use shotclock::{Timing, Watch, WatchExt as _, Watchdog};
use shotclock_peers::Contest;
use tokio_metrics::TaskMonitor;

const BARE: &str = "bare";
const FLOOR: &str = "two raw clock readings";
const WATCHED: &str = "shotclock, Timing::Exact";
const TICKED: &str = "shotclock, Timing::Ticked";
const MONITOR: &str = "tokio-metrics TaskMonitor";

/// Goes over its numbers in each poll, and is never ready.
#[derive(Clone)]
struct Computing {
    numbers: Vec<u64>,
}

impl Future for Computing {
    type Output = ();

    /// Not inlined, so that the call is there for each contender and nothing moves across it.
    ///
    /// The numbers do not depend on one another: while one computation waits for another, the
    /// processor would do the watchdog's work for nothing.
    #[inline(never)]
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        for number in &mut self.numbers {
            *number = number
                .wrapping_mul(6_364_136_223_846_793_005)
                .rotate_left(17);
        }
        black_box(&mut self.numbers);
        Poll::Pending
    }
}

/// The least that any timing can do.
struct Floor {
    clock: quanta::Clock,
    inner: Computing,
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

fn contest<'a>(
    title: &'static str,
    numbers: usize,
    [exact, ticked]: &[Watch; 2],
    monitor: &TaskMonitor,
) -> Contest<'a> {
    let bare = Computing {
        numbers: (1..=numbers as u64).collect(),
    };
    let floor = Floor {
        clock: quanta::Clock::new(),
        inner: bare.clone(),
    };
    Contest::new(title, "poll", 1, 10_000)
        .contender(BARE, poll_by_hand(bare.clone()))
        .contender(FLOOR, poll_by_hand(floor))
        .contender(WATCHED, poll_by_hand(bare.clone().watched(exact)))
        .contender(TICKED, poll_by_hand(bare.clone().watched(ticked)))
        .contender(MONITOR, poll_by_hand(monitor.instrument(bare)))
        .goal("exact - floor, ns", 6.0, |rounds| {
            rounds.difference(WATCHED, FLOOR)
        })
        .goal("ticked - bare, ns", 4.0, |rounds| {
            rounds.difference(TICKED, BARE)
        })
        .goal("(watched - bare) / (TaskMonitor - bare)", 0.35, |rounds| {
            rounds.difference(WATCHED, BARE) / rounds.difference(MONITOR, BARE)
        })
}

fn main() {
    let watches = [Timing::Exact, Timing::Ticked].map(|timing| {
        let builder = Watchdog::builder().without_tracing().timing(timing);
        let watchdog = builder.build().expect("a thread can be started");
        watchdog.watch("bench")
    });
    let monitor = TaskMonitor::new();
    contest("poll_overhead, empty polls", 0, &watches, &monitor)
        .goal("watched / TaskMonitor", 0.35, |rounds| {
            rounds.ratio(WATCHED, MONITOR)
        })
        .run();
    contest("poll_overhead, 250 ns polls", 1_024, &watches, &monitor).run();
}

//! What it costs to make a watched future, and to make it and drop it again, beside the same future bare: of one
//! without a destructor, and of one with a destructor, which is timed as a poll is. Never polled, so that this is
//! all.

use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use shotclock::{Timing, Watch, WatchExt as _, Watchdog};
use shotclock_peers::Contest;

const BARE: &str = "bare";
const EXACT: &str = "watched, Timing::Exact";

/// Owns something that has to be done at its end.
struct Owner(u64);

impl Future for Owner {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        black_box(self.0);
    }
}

fn made_and_dropped<T>(make: impl Fn() -> T) -> impl FnMut(u64) -> Duration {
    move |turns| {
        let start = Instant::now();
        for _ in 0..turns {
            drop(black_box(make()));
        }
        start.elapsed()
    }
}

/// Kept in a row that is there already, and dropped when the time was taken.
fn made<T>(make: impl Fn() -> T) -> impl FnMut(u64) -> Duration {
    const ROW: u64 = 100;
    let mut row = Vec::with_capacity(ROW as usize);
    move |turns| {
        let rows = (0..turns / ROW).map(|_| {
            let start = Instant::now();
            (0..ROW).for_each(|_| row.push(make()));
            let taken = start.elapsed();
            black_box(&mut row).clear();
            taken
        });
        rows.sum()
    }
}

fn watch(timing: Timing) -> Watch {
    let builder = Watchdog::builder().without_tracing().timing(timing);
    let watchdog = builder.build().expect("threads can be started");
    watchdog.watch("wrapping")
}

fn main() {
    let [exact] = [Timing::Exact].map(watch);
    let without = || -> Ready<u64> { black_box(ready(7)) };
    let with = || black_box(Owner(7));
    Contest::new("wrapping alone", "future", 1, 100_000)
        .contender(BARE, made(without))
        .contender(EXACT, made(|| without().watched(&exact)))
        .goal("exact - bare, ns", 5.0, |rounds| {
            rounds.difference(EXACT, BARE)
        })
        .run();
    Contest::new("wrapping and dropping", "future", 1, 100_000)
        .contender(BARE, made_and_dropped(without))
        .contender(EXACT, made_and_dropped(|| without().watched(&exact)))
        .run();
    Contest::new(
        "wrapping and dropping, with a destructor",
        "future",
        1,
        100_000,
    )
    .contender(BARE, made_and_dropped(with))
    .contender(EXACT, made_and_dropped(|| with().watched(&exact)))
    .run();
}

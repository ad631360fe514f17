//! What is counted.

use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use shotclock::coop::{Pace, Rule};
use shotclock::{Timing, Watch, WatchExt as _, Watchdog, yield_after, yield_every};

pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) run: fn(u64),
    /// What is subtracted, by name.
    pub(crate) less: &'static str,
    /// Instructions of one turn, at most. Some more than were counted, because compilers differ.
    pub(crate) at_most: f64,
    /// Locked instructions of one turn, at most.
    pub(crate) locks: f64,
}

pub(crate) const SUBJECTS: &[Subject] = &[
    Subject {
        name: "bare poll",
        run: |turns| poll_often(Empty, turns),
        less: "",
        at_most: f64::INFINITY,
        locks: 0.0,
    },
    Subject {
        name: "two clock readings",
        run: |turns| poll_often(Floor::new(), turns),
        less: "bare poll",
        at_most: f64::INFINITY,
        locks: 0.0,
    },
    Subject {
        name: "watched poll, exact",
        run: |turns| poll_often(Empty.watched(&watch(Timing::Exact)), turns),
        less: "two clock readings",
        at_most: 190.0,
        locks: 0.0,
    },
    Subject {
        name: "watched poll, ticked",
        run: poll_by_ticks,
        less: "bare poll",
        at_most: 150.0,
        locks: 0.0,
    },
    Subject {
        name: "loop",
        run: |turns| to_the_end(iterate(turns)),
        less: "",
        at_most: f64::INFINITY,
        locks: 0.0,
    },
    Subject {
        name: "tick of yield_every",
        run: |turns| to_the_end(iterate_with(yield_every(1_000), turns)),
        less: "loop",
        at_most: 15.0,
        locks: 0.0,
    },
    Subject {
        name: "tick of yield_after",
        run: |turns| to_the_end(iterate_with(yield_after(SLICE), turns)),
        less: "loop",
        at_most: 18.0,
        locks: 0.0,
    },
    Subject {
        name: "future, made and dropped",
        run: |turns| wrap_often(turns, |future| future),
        less: "",
        at_most: f64::INFINITY,
        locks: 0.0,
    },
    Subject {
        name: "watched future, made and dropped",
        run: |turns| {
            let watch = watch(Timing::Exact);
            wrap_often(turns, move |future| future.watched(&watch));
        },
        less: "future, made and dropped",
        at_most: 15.0,
        // The handle on the watch is counted up and down.
        locks: 2.0,
    },
];

const SLICE: Duration = Duration::from_millis(1);

// What is counted ----------------------------------------------------------------------------------

/// Valgrind counts the instructions inside this function only, by its name.
#[inline(never)]
fn counted(f: &mut dyn FnMut()) {
    f();
    black_box(());
}

/// Without a limit, so that no poll leaves the hot path because valgrind lets other threads run.
fn watch(timing: Timing) -> Watch {
    let builder = Watchdog::builder().without_tracing().timing(timing);
    let watchdog = builder.build().expect("threads can be started");
    watchdog.watch("counted").with_budget(Duration::MAX)
}

/// Runs while the ticker does, which is while a poll is in flight.
fn poll_by_ticks(turns: u64) {
    let watch = watch(Timing::Ticked);
    let (done, until_done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(|| {
            let _in_flight = watch.enter();
            let _ = until_done.into_iter().next();
        });
        // Valgrind runs one thread at a time: now it is the sentinel's turn.
        thread::sleep(Duration::from_millis(300));
        poll_often(Empty.watched(&watch), turns);
        drop(done);
    });
}

struct Empty;

impl Future for Empty {
    type Output = ();

    #[inline(never)]
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        black_box(Poll::Pending)
    }
}

/// The least that any timing can do.
struct Floor {
    clock: quanta::Clock,
}

impl Floor {
    fn new() -> Self {
        Self {
            clock: quanta::Clock::new(),
        }
    }
}

impl Future for Floor {
    type Output = ();

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let start = self.clock.raw();
        let polled = pin!(Empty).poll(cx);
        black_box(self.clock.raw().wrapping_sub(start));
        polled
    }
}

/// A runtime's call: it does not know what it polls.
#[inline(never)]
fn poll_once<F: Future<Output = ()>>(future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<()> {
    future.poll(cx)
}

fn poll_often<F: Future<Output = ()>>(future: F, turns: u64) {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    // At its first poll a thread is given what it needs.
    let _ = poll_once(future.as_mut(), &mut cx);
    counted(&mut || {
        for _ in 0..turns {
            let _ = black_box(poll_once(black_box(future.as_mut()), &mut cx));
        }
    });
}

async fn iterate(turns: u64) {
    for turn in 0..turns {
        black_box(turn);
    }
}

async fn iterate_with(mut pace: Pace<impl Rule>, turns: u64) {
    for turn in 0..turns {
        black_box(turn);
        pace.tick().await;
    }
}

fn to_the_end(future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    counted(&mut || while black_box(future.as_mut()).poll(&mut cx).is_pending() {});
}

fn wrap_often<T>(turns: u64, wrap: impl Fn(Ready<()>) -> T) {
    counted(&mut || {
        for _ in 0..turns {
            drop(black_box(wrap(black_box(ready(())))));
        }
    });
}

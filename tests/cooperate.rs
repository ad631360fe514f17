//! `yield_every` and `yield_after`: when they yield, on which runtimes, and which tasks run then. `src/tests/pacing.rs` tests
//! the length of a slice under a mocked clock.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::stream::{self, FusedStream as _, Stream as _, StreamExt as _};
use shotclock::coop::{Pace, Rule, Slice, iter};
use shotclock::{WatchExt as _, Watchdog, YieldExt as _, yield_after, yield_every};
use tokio::task::{LocalSet, unconstrained};

async fn ticks(count: u64, every: u64) {
    let mut pace = yield_every(every);
    for _ in 0..count {
        pace.tick().await;
    }
}

async fn polls_of(future: impl Future<Output = ()>) -> u64 {
    let watchdog = Watchdog::builder().without_tracing().build().unwrap();
    let watch = watchdog.watch("loop");
    future.watched(&watch).await;
    watch.stats().polls
}

#[tokio::test]
async fn yield_every_yields_at_each_nth_tick() {
    assert_eq!(polls_of(ticks(1_000, 100)).await, 11);
    assert_eq!(polls_of(ticks(99, 100)).await, 1);
    assert_eq!(polls_of(ticks(5, 1)).await, 6);
    assert_eq!(polls_of(ticks(5, u64::MAX)).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn yield_every_on_a_multi_thread_runtime_and_unconstrained_yields() {
    let polls = tokio::spawn(polls_of(ticks(1_000, 10))).await.unwrap();
    assert_eq!(polls, 101);
    assert_eq!(polls_of(unconstrained(ticks(1_000, 10))).await, 101);
}

#[test]
fn yield_every_without_a_runtime_yields() {
    assert_eq!(futures::executor::block_on(polls_of(ticks(100, 10))), 11);
}

#[tokio::test(flavor = "current_thread")]
async fn yield_every_lets_timers_and_tasks_run() {
    let turns = std::rc::Rc::new(std::cell::Cell::new(0));
    let others = async {
        loop {
            turns.set(turns.get() + 1);
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        () = ticks(1_000, 10) => (),
        () = others => (),
    }
    assert_eq!(turns.get(), 100);
    // The driver runs at a yield, so a timer ends the loop.
    let until_a_timer = async {
        let mut pace = yield_every(1);
        loop {
            pace.tick().await;
        }
    };
    let limit = std::time::Duration::from_millis(1);
    assert!(tokio::time::timeout(limit, until_a_timer).await.is_err());
}

#[test]
fn cancelled_tick_keeps_the_pace_consistent() {
    let mut context = Context::from_waker(Waker::noop());
    let mut pace = yield_every(2);
    drop(pace.tick()); // never polled: not counted
    assert!(pin!(pace.tick()).poll(&mut context).is_ready());
    {
        let mut due = pin!(pace.tick());
        assert!(due.as_mut().poll(&mut context).is_pending());
        // Cancelled while it yields: the next tick ends that yield, and the count begins again.
    }
    assert!(pin!(pace.tick()).poll(&mut context).is_ready());
    assert!(pin!(pace.tick()).poll(&mut context).is_ready());
    let mut due = pin!(pace.tick());
    assert!(due.as_mut().poll(&mut context).is_pending());
    assert_eq!(due.as_mut().poll(&mut context), Poll::Ready(()));
}

#[test]
#[should_panic(
    expected = "yield_every(0): the number of ticks between two yields must be at least 1"
)]
fn yield_every_zero_panics() {
    let _ = yield_every(0);
}

/// A pace that is always due.
fn at_once() -> Pace<Slice> {
    yield_after(Duration::ZERO)
}

async fn ticks_of(mut pace: Pace<impl Rule>, count: u64) {
    for _ in 0..count {
        pace.tick().await;
    }
}

#[test]
fn paces_on_each_kind_of_runtime_yield() {
    yields_everywhere(|| yield_every(1));
    yields_everywhere(at_once);
}

/// Fifty ticks and the end. By time there may be more polls: a turn is skipped if the thread was not scheduled before it.
fn assert_polls(polls: u64) {
    assert!((51..=60).contains(&polls), "{polls}");
}

fn yields_everywhere<R: Rule + Send + 'static>(pace: fn() -> Pace<R>) {
    let multi = tokio::runtime::Builder::new_multi_thread;
    let single = tokio::runtime::Builder::new_current_thread;
    let work = || polls_of(ticks_of(pace(), 50));
    assert_polls(futures::executor::block_on(work()));
    for mut builder in [multi(), single()] {
        let runtime = builder.worker_threads(1).build().unwrap();
        assert_polls(runtime.block_on(work()));
        assert_polls(runtime.block_on(unconstrained(work())));
        assert_polls(runtime.block_on(runtime.spawn(work())).unwrap());
        assert_polls(LocalSet::new().block_on(&runtime, work()));
        let local = LocalSet::new();
        let task = local.spawn_local(work());
        assert_polls(local.block_on(&runtime, task).unwrap());
    }
}

#[test]
fn yield_after_outside_a_watched_future_counts_its_own_time() {
    let mut context = Context::from_waker(Waker::noop());
    let mut never = yield_after(Duration::MAX);
    for _ in 0..100_000 {
        assert!(pin!(never.tick()).poll(&mut context).is_ready());
    }
    // The time begins with the first tick, however old the pace is.
    let slice = Duration::from_millis(20);
    let mut pace = yield_after(slice);
    std::thread::sleep(2 * slice);
    assert!(!pace.is_due());
    std::thread::sleep(slice);
    while !pace.is_due() {}
    assert!(pin!(pace.tick()).poll(&mut context).is_pending());
    assert!(pin!(pace.tick()).poll(&mut context).is_ready());
}

#[test]
fn is_due_stays_true_until_the_yield() {
    let mut context = Context::from_waker(Waker::noop());
    let mut pace = yield_every(3);
    assert_eq!(
        [(); 5].map(|()| pace.is_due()),
        [false, false, true, true, true]
    );
    {
        let mut edge = pin!(pace.yield_now());
        assert!(edge.as_mut().poll(&mut context).is_pending());
        assert!(edge.as_mut().poll(&mut context).is_ready());
    }
    assert_eq!([(); 3].map(|()| pace.is_due()), [false, false, true]);
    // A tick also ends it.
    assert!(pin!(pace.tick()).poll(&mut context).is_pending());
    assert!(pin!(pace.tick()).poll(&mut context).is_ready());
    assert!(!pace.is_due());
    // It yields although the pace is not due.
    assert!(pin!(pace.yield_now()).poll(&mut context).is_pending());
}

#[test]
fn cancelled_yields_keep_the_pace_consistent() {
    may_be_cancelled(yield_every(1));
    may_be_cancelled(at_once());
}

fn may_be_cancelled(mut pace: Pace<impl Rule>) {
    let mut context = Context::from_waker(Waker::noop());
    drop(pace.tick());
    drop(pace.yield_now());
    assert!(pin!(pace.tick()).poll(&mut context).is_pending());
    // Cancelled while it yields: the task has yielded, so the pace is no longer due.
    assert!(pin!(pace.tick()).poll(&mut context).is_ready());
    assert!(pin!(pace.yield_now()).poll(&mut context).is_pending());
    assert!(!pace.is_due());
    assert!(pin!(pace.tick()).poll(&mut context).is_pending());
}

#[test]
fn paced_stream_yields_and_loses_no_item() {
    let mut context = Context::from_waker(Waker::noop());
    let mut numbers = stream::iter(0..4).yield_every(2);
    let mut seen = Vec::new();
    for _ in 0..6 {
        // A new future for each poll, as under `select!`.
        seen.push(match pin!(numbers.next()).poll(&mut context) {
            Poll::Ready(item) => item,
            Poll::Pending => Some(-1),
        });
    }
    assert_eq!(
        seen,
        [Some(0), Some(1), Some(-1), Some(2), Some(3), Some(-1)]
    );
    assert_eq!(pin!(numbers.next()).poll(&mut context), Poll::Ready(None));
}

#[test]
fn paced_stream_keeps_the_traits_of_its_stream() {
    fn is_unpin<T: Unpin>(_: &T) {}
    let mut numbers = stream::iter(0..4)
        .fuse()
        .yield_after(Duration::from_millis(1));
    is_unpin(&numbers);
    assert_eq!(numbers.size_hint(), (4, Some(4)));
    assert!(!numbers.is_terminated());
    let all: Vec<_> = futures::executor::block_on(numbers.by_ref().collect());
    assert_eq!(all, [0, 1, 2, 3]);
    assert!(numbers.is_terminated());
    assert_eq!(numbers.size_hint(), (0, Some(0)));
    assert_eq!(numbers.inner_mut().size_hint(), (0, Some(0)));
    assert!(numbers.into_inner().is_terminated());

    // A stream that is not `Unpin` works when it is pinned.
    let unpinned = stream::unfold(0, |n| async move { (n < 3).then_some((n, n + 1)) });
    let mut pinned = pin!(unpinned.yield_every(1));
    assert_eq!(futures::executor::block_on(pinned.as_mut().count()), 3);
    assert_eq!(pinned.as_mut().inner_pin_mut().size_hint().0, 0);
}

#[test]
fn iter_yields_between_items() {
    struct Bomb(u32);
    impl Iterator for Bomb {
        type Item = u32;
        fn next(&mut self) -> Option<u32> {
            self.0 = self.0.checked_sub(1).expect("asked after its end");
            (self.0 > 0).then_some(self.0)
        }
    }
    let mut numbers = iter(Bomb(4)).yield_every(1);
    assert!(!numbers.is_terminated());
    let polls = futures::executor::block_on(polls_of(async {
        assert_eq!(numbers.by_ref().collect::<Vec<_>>().await, [3, 2, 1]);
    }));
    assert_eq!(polls, 4);
    assert!(numbers.is_terminated());
    assert_eq!(futures::executor::block_on(numbers.next()), None);
    assert_eq!(iter(0..10).size_hint(), (10, Some(10)));
    let polls = polls_of(async {
        iter(0..50)
            .yield_after(Duration::ZERO)
            .for_each(|_| async {})
            .await;
    });
    assert_polls(futures::executor::block_on(polls));
}

#[tokio::test(flavor = "current_thread")]
async fn yield_after_lets_other_tasks_run() {
    let turns = Rc::new(Cell::new(0));
    let others = async {
        loop {
            turns.set(turns.get() + 1);
            tokio::task::yield_now().await;
        }
    };
    let looping = async {
        let mut pace = yield_after(Duration::from_micros(100));
        // Until the other tasks have had ten turns.
        while turns.get() < 10 {
            pace.tick().await;
        }
    };
    tokio::select! {
        biased;
        () = looping => (),
        () = others => (),
    }
}

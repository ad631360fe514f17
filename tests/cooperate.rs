//! `yield_every`: when it yields, and what runs meanwhile.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use shotclock::{WatchExt as _, Watchdog, yield_every};
use tokio::task::unconstrained;

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
async fn it_yields_at_every_nth_tick() {
    assert_eq!(polls_of(ticks(1_000, 100)).await, 11);
    assert_eq!(polls_of(ticks(99, 100)).await, 1);
    assert_eq!(polls_of(ticks(5, 1)).await, 6);
    assert_eq!(polls_of(ticks(5, u64::MAX)).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_yields_on_a_multi_thread_runtime_and_unconstrained() {
    let polls = tokio::spawn(polls_of(ticks(1_000, 10))).await.unwrap();
    assert_eq!(polls, 101);
    assert_eq!(polls_of(unconstrained(ticks(1_000, 10))).await, 101);
}

#[test]
fn it_yields_without_a_runtime() {
    assert_eq!(futures::executor::block_on(polls_of(ticks(100, 10))), 11);
}

#[tokio::test(flavor = "current_thread")]
async fn timers_and_other_tasks_run_meanwhile() {
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
    // The driver runs at a yield: a timer that is due ends the loop from outside.
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
fn a_tick_that_is_cancelled_leaves_the_pace_whole() {
    let mut context = Context::from_waker(Waker::noop());
    let mut pace = yield_every(2);
    drop(pace.tick()); // never polled: not counted
    assert!(pin!(pace.tick()).poll(&mut context).is_ready());
    {
        let mut due = pin!(pace.tick());
        assert!(due.as_mut().poll(&mut context).is_pending());
        // Cancelled while it yields: the next tick ends that, and counts anew from there.
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
fn every_zeroth_tick_is_refused() {
    let _ = yield_every(0);
}

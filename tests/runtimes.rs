//! All ways to poll: each kind of runtime, none, and the combinators.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::future::ready;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use shotclock::{Watch, WatchExt as _, Watchdog};
use tokio::task::{LocalSet, yield_now};

fn watchdog() -> Watchdog {
    Watchdog::builder().without_tracing().build().unwrap()
}

/// Two polls.
async fn one_yield() -> u32 {
    yield_now().await;
    1
}

#[tokio::test(flavor = "current_thread")]
async fn polls_on_a_current_thread_runtime_are_counted() {
    let watch = watchdog().watch("w");
    let task = tokio::spawn(one_yield().watched(&watch));
    assert_eq!(task.await.unwrap(), 1);
    assert_eq!(watch.stats().polls, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polls_on_a_multi_thread_runtime_are_counted() {
    let watch = watchdog().watch("w");
    let task = tokio::spawn(one_yield().watched(&watch));
    assert_eq!(task.await.unwrap(), 1);
    assert_eq!(watch.stats().polls, 2);
}

#[tokio::test]
async fn polls_in_a_local_set_are_counted() {
    let watch = watchdog().watch("w");
    let local = async {
        let not_send = std::rc::Rc::new(1);
        yield_now().await;
        *not_send
    };
    let set = LocalSet::new();
    let task = set.spawn_local(local.watched(&watch));
    set.await;
    assert_eq!(task.await.unwrap(), 1);
    assert_eq!(watch.stats().polls, 2);
}

#[test]
fn polls_under_another_executor_are_counted() {
    let watch = watchdog().watch("w");
    let sum = futures::executor::block_on(
        async { ready(1).watched(&watch).await + ready(2).watched(&watch).await }.watched(&watch),
    );
    assert_eq!(sum, 3);
    assert_eq!(watch.stats().polls, 3);
}

#[tokio::test]
async fn polls_under_join_all_count_for_the_children() {
    let watchdog = watchdog();
    let (outer, child) = (watchdog.watch("outer"), watchdog.watch("child"));
    let children = (0..20).map(|_| one_yield().watched(&child));
    let sum: u32 = futures::future::join_all(children)
        .watched(&outer)
        .await
        .iter()
        .sum();
    assert_eq!(sum, 20);
    assert_eq!(child.stats().polls, 40);
    assert!(outer.stats().polls >= 2);
}

#[tokio::test]
async fn select_loser_is_dropped_and_counted() {
    let watchdog = watchdog();
    let (winner, loser) = (watchdog.watch("winner"), watchdog.watch("loser"));
    tokio::select! {
        biased;
        () = std::future::pending::<()>().watched(&loser) => unreachable!(),
        one = one_yield().watched(&winner) => assert_eq!(one, 1),
    }
    assert_eq!((winner.stats().polls, loser.stats().polls), (2, 2));
    assert_eq!(loser.stats().in_flight, 0);
}

#[tokio::test]
async fn futures_unordered_of_watched_futures_is_watched() {
    let watchdog = watchdog();
    let (outer, child) = (watchdog.watch("outer"), watchdog.watch("child"));
    let children: FuturesUnordered<_> = (0..10).map(|_| one_yield().watched(&child)).collect();
    let sum = children
        .watched(&outer)
        .fold(0, async |sum, one| sum + one)
        .await;
    assert_eq!(sum, 10);
    assert_eq!(child.stats().polls, 20);
    assert!(outer.stats().polls > 10);
}

#[tokio::test]
async fn report_names_task_and_thread() {
    let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel();
    let report = move |slow: &shotclock::SlowPoll| drop(tx.send(slow.clone()));
    let builder = Watchdog::builder().without_tracing().on_slow_poll(report);
    let watchdog = builder.build().unwrap();
    let watch = watchdog.watch("w").with_budget(Duration::ZERO);
    let task = tokio::spawn(async { assert!(tokio::task::try_id().is_some()) }.watched(&watch));
    let id = task.id();
    task.await.unwrap();
    let slow = rx.recv().await.unwrap();
    assert_eq!(slow.task, Some(id));
    assert_eq!(slow.thread.id, std::thread::current().id());
    assert_eq!(
        slow.thread.to_string(),
        std::thread::current().name().unwrap()
    );
}

#[tokio::test]
async fn aborted_task_leaves_no_poll_in_flight() {
    let watch = watchdog().watch("w");
    let task = tokio::spawn(std::future::pending::<()>().watched(&watch));
    yield_now().await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert_eq!((watch.stats().polls, watch.stats().in_flight), (1, 0));
}

#[test]
fn handles_have_the_documented_auto_traits() {
    fn everywhere<T: Send + Sync + Clone + 'static>() {}
    fn sends<T: Send>(_: &T) {}
    everywhere::<Watchdog>();
    everywhere::<Watch>();
    everywhere::<shotclock::SlowPoll>();
    everywhere::<shotclock::Snapshot>();
    sends(&ready(1).watched(&watchdog().watch("w")));
}

#[test]
fn watches_past_the_limit_share_one() {
    let builder = Watchdog::builder().without_tracing().max_watches(10);
    let watchdog = builder.build().unwrap();
    for name in 0..1_000 {
        drop(watchdog.watch(format!("user {name}")).enter());
    }
    let snapshot = watchdog.snapshot();
    assert_eq!(snapshot.iter().count(), 11);
    assert_eq!(snapshot.get("other").unwrap().polls, 990);
    assert_eq!(snapshot.iter().map(|stats| stats.polls).sum::<u64>(), 1_000);
}

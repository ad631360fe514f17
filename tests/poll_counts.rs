//! The counters are exact on any thread.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::future::ready;
use std::time::Duration;

use shotclock::{Watch, WatchExt as _, Watchdog};

const TASKS: u64 = 8;
const POLLS: u64 = 1_000_000;

/// The budget is never exceeded, because a destructor of a starved thread would count as a slow poll.
fn watch(name: &'static str) -> Watch {
    let builder = Watchdog::builder().without_tracing();
    let watchdog = builder.budget(Duration::from_secs(3_600)).build().unwrap();
    watchdog.watch(name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polls_of_many_tasks_are_all_counted() {
    let watch = watch("shared");
    let task = |watch: Watch| async move {
        for poll in 0..POLLS {
            ready(()).watched(&watch).await;
            if poll % 1_000 == 0 {
                // Moves between the workers.
                tokio::task::yield_now().await;
            }
        }
    };
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| tokio::spawn(task(watch.clone())))
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let stats = watch.stats();
    assert_eq!(stats.polls, TASKS * POLLS);
    assert_eq!((stats.panicked_polls, stats.in_flight), (0, 0));
    assert!(stats.quantile(0.5) <= stats.quantile(0.99));
    assert!(stats.longest <= stats.busy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polls_of_yielding_tasks_are_counted() {
    const YIELDS: u64 = 20_000;
    let watch = watch("storm");
    let storm = async || {
        for _ in 0..YIELDS {
            tokio::task::yield_now().await;
        }
    };
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| tokio::spawn(storm().watched(&watch)))
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(watch.stats().polls, TASKS * (YIELDS + 1));
}

#[test]
fn polls_of_ended_threads_stay_counted() {
    let watch = watch("threads");
    for _ in 0..50 {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10).for_each(|_| drop(watch.enter())));
            }
        });
    }
    assert_eq!(watch.stats().polls, 50 * 4 * 10);
}

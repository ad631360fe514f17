//! What is polled: futures that do nothing but yield.

use std::future::{Future, poll_fn};
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::task::{JoinSet, yield_now};

use crate::Contender;

/// Where the polls happen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// One future, polled in a loop without a runtime.
    ByHand,
    /// 64 tasks on a runtime of the current thread.
    OneThread,
    /// 64 tasks on two workers.
    TwoWorkers,
}

const TASKS: u64 = 64;

impl Workload {
    /// In the order of the table's columns.
    pub const ALL: [Self; 3] = [Self::ByHand, Self::OneThread, Self::TwoWorkers];

    /// Returns the name in a request.
    pub fn name(self) -> &'static str {
        match self {
            Self::ByHand => "by-hand",
            Self::OneThread => "one-thread",
            Self::TwoWorkers => "two-workers",
        }
    }

    /// The head of its column.
    pub fn heading(self) -> &'static str {
        match self {
            Self::ByHand => "one future, polled by hand",
            Self::OneThread => "64 tasks, one thread",
            Self::TwoWorkers => "64 tasks, two workers",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|workload| workload.name() == name)
    }
}

/// Never ready, as long as it is polled no more often than that.
async fn pending_for(mut polls: u64) {
    poll_fn(|_| {
        polls = black_box(polls) - 1;
        match polls {
            0 => Poll::Ready(()),
            _ => Poll::Pending,
        }
    })
    .await;
}

pub(crate) fn by_hand(contender: &impl Contender, polls: u64) -> Duration {
    let mut future = pin!(contender.wrap(pending_for(polls)));
    let mut cx = Context::from_waker(Waker::noop());
    let start = Instant::now();
    while black_box(future.as_mut()).poll(&mut cx).is_pending() {}
    start.elapsed()
}

async fn yield_often(times: u64) {
    for _ in 0..times {
        yield_now().await;
    }
}

/// Makes `polls` polls of all tasks together, until the last task is done.
pub(crate) fn storm(runtime: &Runtime, contender: &impl Contender, polls: u64) -> Duration {
    runtime.block_on(async {
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..TASKS {
            tasks.spawn(contender.wrap(yield_often(polls / TASKS)));
        }
        tasks.join_all().await;
        start.elapsed()
    })
}

//! What an audit costs a poll: the accounts of the thread before it and after it.

use std::future::{Future, poll_fn};
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use shotclock::testing::audit;
use shotclock_peers::Contest;

const POLLS: u64 = 1_000;

fn yields(mut polls: u64) -> impl Future<Output = ()> {
    poll_fn(move |_| {
        polls -= 1;
        match black_box(polls) {
            0 => Poll::Ready(()),
            _ => Poll::Pending,
        }
    })
}

fn poll_to_the_end<F: Future>(make: impl Fn() -> F) -> impl FnMut(u64) -> Duration {
    move |turns| {
        let start = Instant::now();
        for _ in 0..turns {
            let mut future = pin!(make());
            let mut cx = Context::from_waker(Waker::noop());
            while black_box(future.as_mut().poll(&mut cx)).is_pending() {}
        }
        start.elapsed()
    }
}

fn main() {
    Contest::new("audit", "poll", POLLS, 1)
        .contender("bare", poll_to_the_end(|| yields(POLLS)))
        .contender("audited", poll_to_the_end(|| audit(yields(POLLS))))
        .run();
}

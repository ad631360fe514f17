//! A million closures through a short queue, and the memory that they take, counted by the allocator.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod heap;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use futures::future::join_all;
use shotclock::Lane;

const CALLERS: usize = 1_000;

#[test]
fn million_closures_through_a_short_queue_take_bounded_memory() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).build().unwrap();
    let lane = Lane::builder("a million")
        .limit(2)
        .queue(256)
        .build()
        .unwrap();
    let (done, queued) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let run = |closures: usize| {
        let call = |_| {
            let (lane, done, queued) = (lane.clone(), Arc::clone(&done), Arc::clone(&queued));
            runtime.spawn(async move {
                for _ in 0..closures / CALLERS {
                    let done = Arc::clone(&done);
                    lane.run(move || done.fetch_add(1, SeqCst)).await.unwrap();
                    queued.fetch_max(lane.stats().queued, SeqCst);
                }
            })
        };
        let all = join_all((0..CALLERS).map(call));
        runtime.block_on(all).into_iter().for_each(Result::unwrap);
    };
    // The threads, the tasks and the queue of the metrics exist before the measurement.
    let before = heap::peak(|| run(100_000));
    let grown = heap::peak(|| run(1_000_000)).saturating_sub(before);
    assert_eq!(done.load(SeqCst), 1_100_000);
    assert!((1..=256).contains(&queued.load(SeqCst)), "{queued:?}");
    assert!(
        grown < 1 << 20,
        "{grown} bytes more than a tenth of them took"
    );
}

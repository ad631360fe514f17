//! A million closures through a short queue, and the memory that they take, counted by the allocator.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unsafe_code, reason = "an allocator cannot be written without it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use futures::future::join_all;
use shotclock::Lane;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: it forwards to the system's allocator and counts in two statics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), SeqCst) + layout.size();
        MOST.fetch_max(live, SeqCst);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), SeqCst);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CALLERS: usize = 1_000;

#[test]
fn a_million_closures_pass_through_a_short_queue() {
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
    // The threads, the tasks and the metrics' hand-over are there before it is measured.
    run(100_000);
    let before = MOST.swap(LIVE.load(SeqCst), SeqCst);
    run(1_000_000);
    let grown = MOST.load(SeqCst).saturating_sub(before);
    assert_eq!(done.load(SeqCst), 1_100_000);
    assert!((1..=256).contains(&queued.load(SeqCst)), "{queued:?}");
    assert!(
        grown < 1 << 20,
        "{grown} bytes more than a tenth of them took"
    );
}

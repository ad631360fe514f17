//! What wrapping costs in memory, counted by the allocator.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unsafe_code, reason = "an allocator cannot be written without it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::{Future, ready};
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use shotclock::{WatchExt as _, Watchdog};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: it forwards to the system's allocator and counts in a thread-local without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(f: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    f();
    ALLOCATIONS.get() - before
}

#[test]
fn wrapping_polling_and_dropping_allocate_nothing() {
    let watchdog = Watchdog::builder().without_tracing().build().unwrap();
    // A report allocates, and on a busy machine any poll may be slow.
    let watch = watchdog.watch("w").with_budget(Duration::MAX);
    let poll = || {
        let future = pin!(ready(1).watched(&watch));
        assert!(
            future
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_ready()
        );
    };
    poll(); // this thread's counters are made at its first poll
    assert_eq!(allocations(|| (0..10_000).for_each(|_| poll())), 0);
    assert_eq!(allocations(|| drop(Box::new(1))), 1);
}

#[test]
fn a_tick_allocates_nothing() {
    let mut pace = shotclock::yield_every(10);
    let mut tick = || {
        let future = pin!(pace.tick());
        let _ = future.poll(&mut Context::from_waker(Waker::noop()));
    };
    assert_eq!(allocations(|| (0..1_000).for_each(|_| tick())), 0);
}

#[test]
fn wrapping_adds_two_pointers() {
    fn added<T>(inner: T) -> usize {
        let bare = size_of::<T>();
        let watchdog = Watchdog::builder().without_tracing().build().unwrap();
        size_of_val(&inner.watched(&watchdog.watch("w"))) - bare
    }
    assert_eq!(added(ready(1u64)), 16);
    assert_eq!(added(std::future::pending::<()>()), 16);
    assert_eq!(added([0u8; 4096]), 16);
}

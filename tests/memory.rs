//! The memory of wrapped futures, watches and threads, counted by the allocator.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unsafe_code, reason = "an allocator cannot be written without it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::{Future, ready};
use std::pin::{Pin, pin};
use std::sync::Barrier;
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use shotclock::{Watch, WatchExt as _, Watchdog};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// The allocated bytes, freed or not.
    static ALLOCATED: Cell<u64> = const { Cell::new(0) };
    /// The bytes that this thread allocated, without those that it freed.
    static BALANCE: Cell<i64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: it forwards to the system's allocator and counts in thread-locals without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        ALLOCATED.set(ALLOCATED.get() + layout.size() as u64);
        BALANCE.set(BALANCE.get() + layout.size() as i64);
        // SAFETY: as for the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        BALANCE.set(BALANCE.get() - layout.size() as i64);
        // SAFETY: as for the caller.
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

/// Returns the result of `f`, and the growth of this thread's bytes.
fn made<T>(f: impl FnOnce() -> T) -> (T, i64) {
    let before = BALANCE.get();
    let made = f();
    (made, BALANCE.get() - before)
}

fn bytes(f: impl FnOnce()) -> i64 {
    made(f).1
}

fn poll_once(watch: &Watch) {
    let future = pin!(ready(1).watched(watch));
    let polled = future.poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_ready());
}

#[test]
fn watched_future_allocates_nothing() {
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
fn tick_allocates_nothing() {
    let mut pace = shotclock::yield_every(10);
    let mut tick = || {
        let future = pin!(pace.tick());
        let _ = future.poll(&mut Context::from_waker(Waker::noop()));
    };
    assert_eq!(allocations(|| (0..1_000).for_each(|_| tick())), 0);
}

#[test]
fn watched_future_is_two_pointers_larger() {
    fn added<T>(inner: T) -> usize {
        let bare = size_of::<T>();
        let watchdog = Watchdog::builder().without_tracing().build().unwrap();
        size_of_val(&inner.watched(&watchdog.watch("w"))) - bare
    }
    assert_eq!(added(ready(1u64)), 16);
    assert_eq!(added(std::future::pending::<()>()), 16);
    assert_eq!(added([0u8; 4096]), 16);
}

/// Objects that exist once in a process are made with the watchdog, and not at the first slow poll.
#[test]
fn first_slow_poll_allocates_little() {
    let watchdog = Watchdog::builder().without_tracing().build().unwrap();
    let (watch, slow) = (watchdog.watch("w"), watchdog.watch("slow"));
    poll_once(&watch.with_budget(Duration::MAX)); // this thread's counters are made at its first poll
    let slow = slow.with_budget(Duration::ZERO);
    let before = ALLOCATED.get();
    poll_once(&slow);
    let allocated = ALLOCATED.get() - before;
    assert_eq!(slow.stats().slow_polls, 1);
    println!("the first slow poll allocates {allocated} bytes");
    assert!((1..=16 << 10).contains(&allocated), "{allocated}");
}

/// As large as the future of a small handler, and aligned to a word, as nearly every future is.
async fn waits_for_ever() -> usize {
    let request = [1u64; 25];
    std::future::pending::<()>().await;
    request.len()
}

fn boxed_and_polled<F: Future>(make: impl Fn() -> F) -> Vec<Pin<Box<F>>> {
    const FUTURES: usize = 1_000_000;
    let futures = (0..FUTURES).map(|_| {
        let mut future = Box::pin(make());
        let polled = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        future
    });
    futures.collect()
}

#[test]
fn million_watched_futures_take_sixteen_megabytes_more() {
    let watchdog = Watchdog::builder().without_tracing().build().unwrap();
    let watch = watchdog.watch("w").with_budget(Duration::MAX);
    poll_once(&watch); // this thread's counters are made at its first poll
    let (bare, of_bare) = made(|| boxed_and_polled(waits_for_ever));
    drop(bare);
    let (watched, of_watched) = made(|| boxed_and_polled(|| waits_for_ever().watched(&watch)));
    assert!(of_bare > 200_000_000, "{of_bare}");
    assert_eq!(of_watched - of_bare, 16_000_000);
    assert_eq!(watch.stats().polls, watched.len() as u64 + 1);
    assert_eq!(bytes(|| drop(watched)), -of_watched);
}

/// The bytes that one more watch may take.
const WATCH: i64 = 3 << 10;
const THREAD: i64 = 2 << 10;
/// A ticked watch has two sets of counters: for timed and for untimed polls.
const WATCH_ON_A_THREAD: i64 = if cfg!(shotclock_ticked) {
    2 << 10
} else {
    1 << 10
};

#[test]
fn watch_takes_at_most_three_kilobytes() {
    const WATCHES: i64 = 512;
    let builder = Watchdog::builder().without_tracing();
    let watchdog = builder.max_watches(WATCHES as usize).build().unwrap();
    let (watches, all) = made(|| {
        let watches = (0..WATCHES).map(|number| watchdog.watch(format!("watch {number}")));
        watches.collect::<Vec<_>>()
    });
    let each = all / WATCHES;
    println!("a watch takes {each} bytes");
    assert!((size_of::<u64>() as i64..=WATCH).contains(&each), "{each}");
    // Past the limit, further names make no watch.
    let many = bytes(|| drop(watchdog.watch("one too many")));
    let more = bytes(|| (0..10_000).for_each(|n| drop(watchdog.watch(format!("more {n}")))));
    assert!(many <= WATCH, "{many}");
    assert_eq!(more, 0);
    drop(watches);
}

/// Returns the bytes of each thread: at its first poll, and at the first poll of each further watch.
fn threads_that_poll(threads: usize, watches: &[Watch]) -> Vec<(i64, i64)> {
    let all_are_there = Barrier::new(threads);
    thread::scope(|scope| {
        let polls = || {
            all_are_there.wait();
            let first = bytes(|| poll_once(&watches[0]));
            let others = bytes(|| watches[1..].iter().for_each(poll_once));
            let again = bytes(|| watches.iter().for_each(poll_once));
            assert_eq!(again, 0);
            // The next thread takes over the slot of an ended one.
            all_are_there.wait();
            (first, others)
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(polls)).collect();
        let taken = threads.into_iter().map(|thread| thread.join().unwrap());
        taken.collect()
    })
}

#[test]
fn thread_takes_at_most_two_kilobytes_and_one_for_each_watch() {
    const THREADS: usize = 100;
    const WATCHES: usize = 50;
    let watchdog = Watchdog::builder().without_tracing().build().unwrap();
    let named = (0..WATCHES).map(|number| watchdog.watch(format!("watch {number}")));
    let watches: Vec<_> = named.map(|w| w.with_budget(Duration::MAX)).collect();

    let taken = threads_that_poll(THREADS, &watches);
    let first: i64 = taken.iter().map(|(first, _)| first).sum();
    let others: i64 = taken.iter().map(|(_, others)| others).sum();
    let pair = others / (THREADS * (WATCHES - 1)) as i64;
    let thread = first / THREADS as i64 - pair;
    println!("a thread takes {thread} bytes, a watch that it polls {pair}");
    assert!(pair > 500 && pair <= WATCH_ON_A_THREAD, "{pair}");
    assert!(thread > 500 && thread <= THREAD, "{thread}");

    // Further threads take over the slots of the ended ones.
    let taken = threads_that_poll(THREADS, &watches);
    let more: i64 = taken.iter().map(|(first, others)| first + others).sum();
    assert!(more <= first / 10, "{more} after {first}");
}

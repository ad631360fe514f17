//! Captures of threads inside the unwinder, the allocator and the loader, which have crashed other watchdogs. There is no
//! crash and no deadlock, and nearly every stack reaches the watched poll.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::backtrace::Backtrace;
use std::hint::black_box;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use shotclock::{Phase, SlowPoll, Stacks, Watchdog};

/// The captures of each loop. The ignored tests make 10,000.
const FEW: u64 = 300;
const MANY: u64 = 10_000;

#[derive(Default)]
struct Counts {
    captured: AtomicU64,
    complete: AtomicU64,
}

/// Runs `kill` in polls of some milliseconds, until `times` of them were captured.
fn capture(times: u64, kill: impl Fn(u64)) {
    let counts = Arc::new(Counts::default());
    let watchdog = {
        let counts = Arc::clone(&counts);
        let count = move |slow: &SlowPoll| {
            if let (Phase::Running, Some(stack)) = (slow.phase, &slow.stack) {
                counts.captured.fetch_add(1, Relaxed);
                let complete = u64::from(stack.is_complete());
                counts.complete.fetch_add(complete, Relaxed);
            }
        };
        let builder = Watchdog::builder().without_tracing().on_slow_poll(count);
        let builder = builder.stacks(Stacks::Always).report_queue(100_000);
        builder.reports_per_second(u32::MAX).build().unwrap()
    };
    let watch = watchdog
        .watch("killer")
        .with_budget(Duration::from_millis(1));
    let mut turns = 0;
    while counts.captured.load(Relaxed) < times {
        let _poll = watch.enter();
        let start = Instant::now();
        while start.elapsed() < Duration::from_micros(3_500) {
            kill(turns);
            turns += 1;
        }
    }
    let (captured, complete) = (counts.captured.load(Relaxed), counts.complete.load(Relaxed));
    println!("{complete} of {captured} reach the watched poll, {turns} turns");
    assert!(complete * 100 >= captured * 98, "{complete} of {captured}");
}

#[inline(never)]
fn panics(turn: u64) {
    let panicked = catch_unwind(|| {
        let _guard = Box::new(turn);
        // Without the panic hook, which would print.
        resume_unwind(Box::new(turn));
    });
    black_box(panicked.is_err());
}

#[inline(never)]
fn allocates(turn: u64) {
    let size = (turn * 7_919 % 200_000) as usize;
    let mut all: Vec<Vec<u8>> = (0..8).map(|n| vec![1; size >> n]).collect();
    all.rotate_left(3);
    black_box(all);
}

#[inline(never)]
fn loads_symbols(_: u64) {
    black_box(Backtrace::force_capture().to_string());
}

#[test]
fn panicking_loop_has_stacks() {
    capture(FEW, panics);
}

#[test]
fn allocating_loop_has_stacks() {
    capture(FEW, allocates);
}

#[test]
fn loading_loop_has_stacks() {
    capture(FEW, loads_symbols);
}

#[test]
#[ignore = "takes a minute: the longer run of the test above"]
fn panicking_loop_captured_10_000_times_has_stacks() {
    capture(MANY, panics);
}

#[test]
#[ignore = "takes a minute: the longer run of the test above"]
fn allocating_loop_captured_10_000_times_has_stacks() {
    capture(MANY, allocates);
}

#[test]
#[ignore = "takes minutes: the longer run of the test above"]
fn loading_loop_captured_10_000_times_has_stacks() {
    capture(MANY, loads_symbols);
}

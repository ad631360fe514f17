//! Floor 1: a counter that a thread advances, so that a loop notices that time has passed without reading a clock.
//!
//! A loop whose iterations take a nanosecond cannot read a clock in each of them. If it reads the clock at every
//! ten-thousandth iteration, it misses an iteration that suddenly takes a millisecond. It can afford to load a word that
//! rarely changes. A thread changes the word, and sleeps without a timer while no loop requests it.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use crate::background_thread::BackgroundThread;
use crate::sync::thread;

/// The shortest period. A thousand wake-ups a second cost about 1.5 % of a core on a virtual machine, and a shorter
/// period costs more than it gives.
const MIN_PERIOD_NANOS: u64 = 1_000_000;

/// The longest period. A hundred wake-ups a second cost about 0.15 % of a core, and a longer period saves nothing.
const MAX_PERIOD_NANOS: u64 = 10_000_000;

/// The value of `requested_nanos` without a request.
const NO_REQUEST: u64 = u64::MAX;

/// Advances for one request. So a loop that runs on wakes the thread once and not in each period.
const ADVANCES_PER_REQUEST: u32 = 16;

/// The size of one advance. It exceeds the ticks that a pace counts between two clock readings, and lets the counter last
/// for 30 years of the shortest period.
pub(crate) const STEP: u64 = 1 << 24;

struct SliceTicker {
    count: AlignedCount,
    /// The shortest period that a loop requested since the thread took the last request, in nanoseconds.
    requested_nanos: AtomicU64,
    is_asleep: AtomicBool,
    /// The first request tries to start the thread, and no other one: a refused thread costs a loop one system call.
    start_was_tried: AtomicBool,
    thread: BackgroundThread,
}

/// A cache line of its own: the readers keep it in their caches between two advances.
#[repr(align(128))]
struct AlignedCount(AtomicU64);

static SLICE_TICKER: SliceTicker = SliceTicker {
    count: AlignedCount(AtomicU64::new(STEP)),
    requested_nanos: AtomicU64::new(NO_REQUEST),
    is_asleep: AtomicBool::new(false),
    start_was_tried: AtomicBool::new(false),
    thread: BackgroundThread::new("shotclock-slice"),
};

/// Returns the counter, which grows by [`STEP`] or more in each period.
#[inline]
pub(crate) fn count() -> u64 {
    SLICE_TICKER.count.0.load(Relaxed)
}

/// Advances the counter by one [`STEP`].
pub(crate) fn advance() {
    SLICE_TICKER.count.0.fetch_add(STEP, Relaxed);
}

/// Requests that the counter advances for a while, at least once in `period_nanos` as far as the thread is scheduled.
///
/// The first request starts the thread. If the system refuses the thread, the counter stands still.
pub(crate) fn request(period_nanos: u64) {
    let ticker = &SLICE_TICKER;
    let period_nanos = period_nanos.clamp(MIN_PERIOD_NANOS, MAX_PERIOD_NANOS);
    if ticker.requested_nanos.load(Relaxed) > period_nanos {
        ticker.requested_nanos.fetch_min(period_nanos, SeqCst);
    }
    if !ticker.start_was_tried.load(Relaxed) && !ticker.start_was_tried.swap(true, SeqCst) {
        let _ = ticker.thread.start(run);
    }
    // SeqCst: either this thread sees that the ticker sleeps, or the ticker sees the request before it sleeps.
    if ticker.is_asleep.load(SeqCst) && ticker.is_asleep.swap(false, SeqCst) {
        ticker.thread.wake();
    }
}

fn run() {
    loop {
        match SLICE_TICKER.requested_nanos.swap(NO_REQUEST, SeqCst) {
            NO_REQUEST => sleep(),
            period_nanos => advance_for_a_while(period_nanos),
        }
    }
}

fn advance_for_a_while(mut period_nanos: u64) {
    for _ in 0..ADVANCES_PER_REQUEST {
        std::thread::sleep(Duration::from_nanos(period_nanos));
        advance();
        let requested_nanos = SLICE_TICKER.requested_nanos.load(Relaxed);
        period_nanos = period_nanos.min(requested_nanos);
    }
}

fn sleep() {
    let ticker = &SLICE_TICKER;
    ticker.is_asleep.store(true, SeqCst);
    while ticker.is_asleep.load(SeqCst) && ticker.requested_nanos.load(SeqCst) == NO_REQUEST {
        thread::park();
    }
    ticker.is_asleep.store(false, SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_after_request_advances_the_counter_and_ends() {
        for _ in 0..3 {
            let before = count();
            request(1_000_000);
            while count() == before {
                thread::yield_now();
            }
            // Other tests may request it too, so this may take a while.
            while !SLICE_TICKER.is_asleep.load(SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

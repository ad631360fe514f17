//! Floor 1: a beat, for those who must notice that time has passed without reading a clock.
//!
//! A loop whose iterations take a nanosecond cannot read a clock in each of them, and one that reads
//! it at every ten-thousandth does not notice that an iteration suddenly takes a millisecond. It can
//! afford a load of a word that hardly ever changes. A thread changes it, and sleeps for good while
//! nobody wants it to.

use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use crate::service_thread;
use crate::sync::thread::{self, Thread};

const NAME: &str = "shotclock-pulse";

/// Nobody wants a beat.
const NEVER: u64 = u64::MAX;

/// The periods that are kept to, in nanoseconds. A thousand wake-ups a second cost some 1.5 % of a core
/// on a virtual machine: more would cost more than it is worth.
const SHORTEST: u64 = 1_000_000;
const LONGEST: u64 = 10_000_000;

/// So many beats go on after the last wish.
const LAST_FOR: u32 = 16;

/// How far a beat moves the number that is read: farther than anybody counts between two looks. And
/// so little that the number lasts for a hundred million seconds of the quickest beats.
pub(crate) const STEP: u64 = 1 << 24;

/// In a line of its own, which the readers keep in their caches between two beats.
#[repr(align(128))]
struct Beat(AtomicU64);

static BEAT: Beat = Beat(AtomicU64::new(STEP));

/// A number that is [`STEP`] more after a beat, and never less than that.
#[inline]
pub(crate) fn beat() -> u64 {
    BEAT.0.load(Relaxed)
}

/// A beat.
pub(crate) fn strike() {
    BEAT.0.fetch_add(STEP, Relaxed);
}

/// The shortest period that was wished for of late, in nanoseconds.
static WANTED: AtomicU64 = AtomicU64::new(NEVER);
static IS_ASLEEP: AtomicBool = AtomicBool::new(false);
static THREAD: OnceLock<Thread> = OnceLock::new();

/// Has the beat go on for a while, at least once in `period` nanoseconds as far as the operating
/// system lets its thread run.
///
/// The first call starts the thread. If that fails there is no beat, and it is not tried again.
pub(crate) fn want(period: u64) {
    // No thread waits for the one that starts it: that thread may not exist here, in the child of a fork.
    static STARTED: AtomicBool = AtomicBool::new(false);
    let period = period.clamp(SHORTEST, LONGEST);
    if WANTED.load(Relaxed) > period {
        WANTED.fetch_min(period, SeqCst);
    }
    if !STARTED.load(Relaxed) && !STARTED.swap(true, SeqCst) {
        if let Ok(thread) = service_thread::spawn(NAME, run) {
            THREAD.get_or_init(|| thread);
        }
    }
    // Either this sees that the thread sleeps, or the thread sees the wish before it does.
    if IS_ASLEEP.load(SeqCst) && IS_ASLEEP.swap(false, SeqCst) {
        if let Some(thread) = THREAD.get() {
            thread.unpark();
        }
    }
}

fn run() {
    THREAD.get_or_init(thread::current);
    loop {
        match WANTED.swap(NEVER, SeqCst) {
            NEVER => sleep(),
            period => strike_for_a_while(period),
        }
    }
}

fn strike_for_a_while(mut period: u64) {
    for _ in 0..LAST_FOR {
        std::thread::sleep(Duration::from_nanos(period));
        strike();
        period = period.min(WANTED.load(Relaxed));
    }
}

fn sleep() {
    IS_ASLEEP.store(true, SeqCst);
    while IS_ASLEEP.load(SeqCst) && WANTED.load(SeqCst) == NEVER {
        thread::park();
    }
    IS_ASLEEP.store(false, SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_beats_when_it_is_wanted_and_not_for_ever() {
        for _ in 0..3 {
            let before = beat();
            want(1_000_000);
            while beat() == before {
                thread::yield_now();
            }
            // Other tests may want it as well, so that it may take a while.
            while !IS_ASLEEP.load(SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

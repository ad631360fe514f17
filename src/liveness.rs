//! Floor 1: signs of life of two threads of ours.
//!
//! The sentinel and the ticker sleep on timers of their own. One of them that oversleeps proves nothing of
//! the process: a debugger may hold it, or a page fault. If both were silent in the same stretch, that is
//! evidence of a suspension; a sign of life of either is proof that there was none.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::thread;

use crate::clock::Clock;
use crate::sync::Lock;
use crate::sys::Thread;

/// The `nap` of a thread that sleeps without a timer.
const NO_TIMER: u64 = u64::MAX;

/// One of the two threads. All times are raw readings of the machine's clock, durations nanoseconds.
pub(crate) struct Witness {
    /// The latest sign of life. 0 before the first.
    sign: AtomicU64,
    /// How long after its sign the next one is due.
    nap: AtomicU64,
    /// The latest nap that took longer than it should have.
    overslept: Lock<Option<(u64, u64)>>,
    thread: OnceLock<(thread::Thread, Option<Thread>)>,
}

pub(crate) static SENTINEL: Witness = Witness::new();
pub(crate) static TICKER: Witness = Witness::new();

impl Witness {
    pub(crate) const fn new() -> Self {
        Self {
            sign: AtomicU64::new(0),
            nap: AtomicU64::new(0),
            overslept: Lock::new(None),
            thread: OnceLock::new(),
        }
    }

    /// Says that the calling thread is the witness.
    pub(crate) fn register(&self) {
        let handles = || (thread::current(), Thread::current());
        self.thread.get_or_init(handles);
    }

    /// Ends a nap of the thread.
    pub(crate) fn wake(&self) {
        if let Some((thread, _)) = self.thread.get() {
            thread.unpark();
        }
    }

    /// How the kernel knows the thread.
    pub(crate) fn thread(&self) -> Option<&Thread> {
        self.thread.get()?.1.as_ref()
    }

    /// The witness's own thread only, as all that follow: it runs at `now`, and sleeps for `nap` at most.
    pub(crate) fn will_nap(&self, now: u64, nap: u64) {
        self.nap.store(nap, Relaxed);
        self.sign.store(now, Release);
    }

    /// It runs at `now`, and sleeps without a timer.
    pub(crate) fn will_sleep(&self, now: u64) {
        self.will_nap(now, NO_TIMER);
    }

    /// It runs at `now`, and naps no longer.
    pub(crate) fn runs(&self, now: u64) {
        self.will_nap(now, 0);
    }

    /// A nap took longer than it should have. Before [`runs`](Self::runs): at no moment is the silence in
    /// neither of the two.
    pub(crate) fn overslept(&self, from: u64, to: u64) {
        *self.overslept.lock() = Some((from, to));
    }

    /// The latest sign of life.
    pub(crate) fn sign(&self) -> u64 {
        self.sign.load(Acquire)
    }

    /// The nap that it takes, in nanoseconds. [`u64::MAX`] while it sleeps without a timer.
    pub(crate) fn nap(&self) -> u64 {
        self.nap.load(Relaxed)
    }

    /// Whether it sleeps without a timer, as far as it said.
    pub(crate) fn has_no_timer(&self) -> bool {
        self.nap() == NO_TIMER
    }

    /// By how much its next sign of life is overdue. 0 while it sleeps without a timer.
    pub(crate) fn overdue(&self, clock: &Clock, now: u64) -> u64 {
        let silence = clock.nanos_between(self.sign(), now);
        silence.saturating_sub(self.nap())
    }

    /// The longest part of a stretch that ends now in which it gave no sign of life, as far as is known;
    /// naps that ended in time do not count.
    pub(crate) fn silence_in(&self, clock: &Clock, from: u64, now: u64) -> u64 {
        let overlap = |(start, end): (u64, u64)| clock.nanos_between(start.max(from), end.min(now));
        let overslept = *self.overslept.lock();
        let at_present = overlap((self.sign(), now));
        overslept.map_or(0, overlap).max(at_present)
    }
}

/// For how long neither of the two has given a sign of life.
pub(crate) fn silence_of_both(clock: &Clock, now: u64) -> u64 {
    clock.nanos_between(SENTINEL.sign().max(TICKER.sign()), now)
}

#[cfg(all(test, not(shotclock_loom)))]
mod tests {
    use super::*;

    fn clock() -> Clock {
        Clock::mock().0
    }

    #[test]
    fn a_witness_in_a_nap_is_silent_since_its_last_sign() {
        let (clock, witness) = (clock(), Witness::new());
        witness.will_nap(100, 50);
        assert_eq!(witness.silence_in(&clock, 0, 130), 30);
        assert_eq!(witness.silence_in(&clock, 120, 130), 10);
        assert_eq!(
            (witness.overdue(&clock, 150), witness.overdue(&clock, 151)),
            (0, 1)
        );
    }

    #[test]
    fn a_witness_that_overslept_was_silent_in_that_nap() {
        let (clock, witness) = (clock(), Witness::new());
        witness.overslept(100, 300);
        witness.runs(300);
        assert_eq!(witness.silence_in(&clock, 50, 310), 200);
        assert_eq!(witness.silence_in(&clock, 250, 310), 50);
        assert_eq!(witness.silence_in(&clock, 305, 310), 5);
    }

    #[test]
    fn a_witness_that_was_on_time_was_silent_for_no_longer_than_since_its_last_sign() {
        let (clock, witness) = (clock(), Witness::new());
        for now in [100, 200, 300] {
            witness.will_nap(now, 100);
        }
        assert_eq!(witness.silence_in(&clock, 0, 320), 20);
    }

    #[test]
    fn a_witness_that_sleeps_without_a_timer_is_never_overdue() {
        let (clock, witness) = (clock(), Witness::new());
        witness.will_sleep(100);
        assert!(witness.has_no_timer());
        assert_eq!(witness.overdue(&clock, u64::MAX / 2), 0);
        witness.runs(200);
        assert!(!witness.has_no_timer());
        assert_eq!(witness.overdue(&clock, 210), 10);
    }
}

//! Floor 1: signs of life of the sentinel and the ticker.
//!
//! Both threads sleep on timers of their own. If one oversleeps, a debugger or a page fault may have held it, which proves
//! nothing about the process. If both were silent in the same time, that is evidence of a suspension. A sign of life of
//! either proves that there was none.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::thread;

use crate::clock::Clock;
use crate::sync::Lock;
use crate::sys::Thread;

/// The `sleep_nanos` of a thread that parks without a timer.
const NO_TIMER: u64 = u64::MAX;

/// The signs of life of one of the two threads. Times are raw readings of the machine's clock, durations nanoseconds.
pub(crate) struct Liveness {
    /// The latest sign of life. 0 before the first.
    sign: AtomicU64,
    /// The time after the latest sign at which the next one is due.
    sleep_nanos: AtomicU64,
    /// The begin and end of the latest sleep that took too long.
    overslept: Lock<Option<(u64, u64)>>,
    thread: OnceLock<(thread::Thread, Option<Thread>)>,
}

pub(crate) static SENTINEL: Liveness = Liveness::new();
pub(crate) static TICKER: Liveness = Liveness::new();

impl Liveness {
    pub(crate) const fn new() -> Self {
        Self {
            sign: AtomicU64::new(0),
            sleep_nanos: AtomicU64::new(0),
            overslept: Lock::new(None),
            thread: OnceLock::new(),
        }
    }

    /// Registers the calling thread.
    pub(crate) fn register(&self) {
        let handles = || (thread::current(), Thread::current());
        self.thread.get_or_init(handles);
    }

    /// Gives the first sign of life at `now`, for a thread that was just started. Any thread may call it.
    ///
    /// The system may not run the new thread for long. Without this sign, `health` would not know that a scan is overdue.
    pub(crate) fn start(&self, now: u64) {
        let _ = self.sign.compare_exchange(0, now, Release, Relaxed);
    }

    /// Ends a sleep of the thread.
    pub(crate) fn wake(&self) {
        if let Some((thread, _)) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Returns the thread's identity in the kernel.
    pub(crate) fn thread(&self) -> Option<&Thread> {
        self.thread.get()?.1.as_ref()
    }

    /// Gives a sign of life at `now`, before a sleep of at most `sleep_nanos`. The registered thread only.
    pub(crate) fn will_sleep(&self, now: u64, sleep_nanos: u64) {
        self.sleep_nanos.store(sleep_nanos, Relaxed);
        self.sign.store(now, Release);
    }

    /// Gives a sign of life at `now`, before it parks without a timer. The registered thread only.
    pub(crate) fn will_park(&self, now: u64) {
        self.will_sleep(now, NO_TIMER);
    }

    /// Gives a sign of life at `now`, after a sleep. The registered thread only.
    pub(crate) fn runs(&self, now: u64) {
        self.will_sleep(now, 0);
    }

    /// Records a sleep that took too long. The registered thread only.
    ///
    /// It calls this before [`runs`](Self::runs), so that a reader always sees the silence in one of the two.
    pub(crate) fn overslept(&self, from: u64, to: u64) {
        *self.overslept.lock() = Some((from, to));
    }

    /// Returns the latest sign of life.
    pub(crate) fn sign(&self) -> u64 {
        self.sign.load(Acquire)
    }

    /// Returns the length of the current sleep in nanoseconds. [`u64::MAX`] while the thread is parked without a timer.
    pub(crate) fn sleep_nanos(&self) -> u64 {
        self.sleep_nanos.load(Relaxed)
    }

    /// Returns whether the thread has announced that it parks without a timer.
    pub(crate) fn has_no_timer(&self) -> bool {
        self.sleep_nanos() == NO_TIMER
    }

    /// Returns by how much the next sign of life is overdue. 0 while the thread is parked without a timer.
    pub(crate) fn overdue(&self, clock: &Clock, now: u64) -> u64 {
        let silence = clock.nanos_between(self.sign(), now);
        silence.saturating_sub(self.sleep_nanos())
    }

    /// Returns the longest silence between `from` and `now`, as far as it is known. Sleeps that ended in time do not count.
    pub(crate) fn silence_in(&self, clock: &Clock, from: u64, now: u64) -> u64 {
        let overlap = |(start, end): (u64, u64)| clock.nanos_between(start.max(from), end.min(now));
        let overslept = *self.overslept.lock();
        let at_present = overlap((self.sign(), now));
        overslept.map_or(0, overlap).max(at_present)
    }
}

/// Returns how long neither thread has given a sign of life.
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
    fn start_gives_the_first_sign_only() {
        let (liveness, clock) = (Liveness::new(), clock());
        liveness.start(100);
        assert_eq!(liveness.overdue(&clock, 150), 50);
        liveness.will_sleep(200, 10);
        liveness.start(300);
        assert_eq!(liveness.overdue(&clock, 350), 140);
    }

    #[test]
    fn silence_in_a_sleep_begins_at_the_last_sign() {
        let (clock, liveness) = (clock(), Liveness::new());
        liveness.will_sleep(100, 50);
        assert_eq!(liveness.silence_in(&clock, 0, 130), 30);
        assert_eq!(liveness.silence_in(&clock, 120, 130), 10);
        assert_eq!(
            (liveness.overdue(&clock, 150), liveness.overdue(&clock, 151)),
            (0, 1)
        );
    }

    #[test]
    fn silence_of_a_late_thread_covers_its_sleep() {
        let (clock, liveness) = (clock(), Liveness::new());
        liveness.overslept(100, 300);
        liveness.runs(300);
        assert_eq!(liveness.silence_in(&clock, 50, 310), 200);
        assert_eq!(liveness.silence_in(&clock, 250, 310), 50);
        assert_eq!(liveness.silence_in(&clock, 305, 310), 5);
    }

    #[test]
    fn silence_of_a_punctual_thread_begins_at_the_last_sign() {
        let (clock, liveness) = (clock(), Liveness::new());
        for now in [100, 200, 300] {
            liveness.will_sleep(now, 100);
        }
        assert_eq!(liveness.silence_in(&clock, 0, 320), 20);
    }

    #[test]
    fn overdue_without_a_timer_is_zero() {
        let (clock, liveness) = (clock(), Liveness::new());
        liveness.will_park(100);
        assert!(liveness.has_no_timer());
        assert_eq!(liveness.overdue(&clock, u64::MAX / 2), 0);
        liveness.runs(200);
        assert!(!liveness.has_no_timer());
        assert_eq!(liveness.overdue(&clock, 210), 10);
    }
}

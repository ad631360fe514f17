//! Floor 1: time for those who read no clock.
//!
//! One thread publishes a reading of the clock now and then, a *tick*; everybody else loads it. What began
//! while a tick was the latest began after that tick, and before the moment at which it was replaced:
//! that moment is kept for the ticks of late, because the next one may come late too.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// Nobody ticks: who wants to know the time reads the clock.
const NONE: u64 = 0;

/// So many ticks are remembered: more than half a second of them.
const REMEMBERED: usize = 256;

/// In a line of its own, which the readers keep in their caches between two ticks.
#[repr(align(128))]
pub(crate) struct Ticks {
    latest: AtomicU64,
    memory: Memory,
}

/// Written by the one thread that ticks.
#[repr(align(128))]
struct Memory {
    count: AtomicU64,
    ring: [Remembered; REMEMBERED],
}

struct Remembered {
    tick: AtomicU64,
    /// By then the one before could no longer be loaded.
    since: AtomicU64,
}

/// The ticks of the machine's clock.
pub(crate) static TICKS: Ticks = Ticks::new();

impl Ticks {
    pub(crate) const fn new() -> Self {
        Self {
            latest: AtomicU64::new(NONE),
            memory: Memory {
                count: AtomicU64::new(0),
                ring: [const {
                    Remembered {
                        tick: AtomicU64::new(NONE),
                        since: AtomicU64::new(0),
                    }
                }; REMEMBERED],
            },
        }
    }

    /// The latest tick, as a raw reading of the clock. `None` if nobody ticks.
    #[inline]
    pub(crate) fn latest(&self) -> Option<u64> {
        let tick = self.latest.load(Relaxed);
        (tick != NONE).then_some(tick)
    }

    /// Whether a tick is still the latest.
    #[inline]
    pub(crate) fn is_latest(&self, tick: u64) -> bool {
        self.latest.load(Relaxed) == tick
    }

    /// A tick. One thread only.
    pub(crate) fn publish(&self, read_clock: impl Fn() -> u64) {
        self.replace(read_clock(), read_clock);
    }

    /// Says that there will be no tick for a while. One thread only.
    pub(crate) fn stop(&self, read_clock: impl Fn() -> u64) {
        if self.latest.load(Relaxed) != NONE {
            self.replace(NONE, read_clock);
        }
    }

    fn replace(&self, tick: u64, read_clock: impl Fn() -> u64) {
        self.latest.store(tick, Release);
        // Read afterwards: this thread may have been interrupted just before it published.
        let since = read_clock();
        let count = self.memory.count.load(Relaxed);
        let entry = &self.memory.ring[count as usize % REMEMBERED];
        entry
            .tick
            .store(if tick == NONE { since } else { tick }, Relaxed);
        entry.since.store(since, Relaxed);
        self.memory.count.store(count + 1, Release);
    }

    /// A moment after `tick` (or any other reading) by which all had begun that had loaded it. `None` if
    /// it is the latest still; the reading itself if nobody remembers it any more.
    pub(crate) fn replaced(&self, tick: u64) -> Option<u64> {
        let count = self.memory.count.load(Acquire);
        let oldest = count.saturating_sub(REMEMBERED as u64 - 1);
        let mut since = None;
        for number in (oldest..count).rev() {
            let entry = &self.memory.ring[number as usize % REMEMBERED];
            if entry.tick.load(Relaxed) <= tick {
                return since;
            }
            since = Some(entry.since.load(Relaxed));
        }
        // Before the oldest that is remembered, or before the first of all.
        Some(if oldest == 0 { since? } else { tick })
    }
}

impl std::fmt::Debug for Ticks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticks").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks_at(moments: impl IntoIterator<Item = u64>) -> Ticks {
        let ticks = Ticks::new();
        for moment in moments {
            // It takes 3 until the tick is published for sure.
            let readings = std::cell::Cell::new(moment);
            ticks.publish(|| readings.replace(moment + 3));
        }
        ticks
    }

    #[test]
    fn who_loaded_a_tick_had_begun_when_the_next_one_was_published() {
        let ticks = ticks_at([100, 200, 350]);
        assert_eq!(ticks.latest(), Some(350));
        assert_eq!(ticks.replaced(100), Some(203));
        assert_eq!(ticks.replaced(150), Some(203));
        assert_eq!(ticks.replaced(200), Some(353));
        assert_eq!(ticks.replaced(350), None);
        assert_eq!(ticks.replaced(50), Some(103));
    }

    #[test]
    fn when_nobody_ticks_that_is_said() {
        assert_eq!(Ticks::new().latest(), None);
        assert_eq!(Ticks::new().replaced(7), None);
        let ticks = ticks_at([100]);
        ticks.stop(|| 170);
        ticks.stop(|| 180);
        assert_eq!((ticks.latest(), ticks.replaced(100)), (None, Some(170)));
        assert!(!ticks.is_latest(100));
    }

    #[test]
    fn what_is_too_long_ago_may_have_begun_at_once() {
        let last = 2 * REMEMBERED as u64;
        let ticks = ticks_at((1..=last).map(|number| number * 10));
        assert_eq!(ticks.replaced(50), Some(50));
        assert_eq!(ticks.replaced(last * 10 - 20), Some(last * 10 - 7));
    }
}

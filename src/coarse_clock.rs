//! Floor 1: the coarse clock, for polls that read no clock.
//!
//! One thread, the ticker, publishes a clock reading from time to time, a *tick*. Other threads load it. A poll that
//! loaded a tick began after that tick, and before the ticker replaced it. The coarse clock keeps the times of
//! replacement of recent ticks, because a tick may come late.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::sync::AtomicU64;

/// The tick while the ticker is stopped.
const NONE: u64 = 0;

/// Ticks whose replacement is kept: a quarter of a second at the shortest tick, 1 ms.
pub(crate) const KEPT_TICKS: usize = if cfg!(shotclock_loom) { 3 } else { 256 };

/// Has a cache line of its own, which readers keep in their caches between two ticks.
#[repr(align(128))]
pub(crate) struct CoarseClock {
    latest: AtomicU64,
    replacements: Replacements,
}

/// The ring of recent ticks. Only the ticker writes to it.
#[repr(align(128))]
struct Replacements {
    count: AtomicU64,
    ring: [KeptTick; KEPT_TICKS],
}

struct KeptTick {
    tick: AtomicU64,
    /// The time from which no thread could load the tick before.
    since: AtomicU64,
}

/// The coarse clock of the machine's time.
#[cfg(not(shotclock_loom))]
pub(crate) static COARSE_CLOCK: CoarseClock = CoarseClock::new();

#[cfg(shotclock_loom)]
loom::lazy_static! {
    pub(crate) static ref COARSE_CLOCK: CoarseClock = CoarseClock::new();
}

impl CoarseClock {
    #[cfg(shotclock_loom)]
    pub(crate) fn new() -> Self {
        let never = || KeptTick {
            tick: AtomicU64::new(NONE),
            since: AtomicU64::new(0),
        };
        Self {
            latest: AtomicU64::new(NONE),
            replacements: Replacements {
                count: AtomicU64::new(0),
                ring: std::array::from_fn(|_| never()),
            },
        }
    }

    #[cfg(not(shotclock_loom))]
    pub(crate) const fn new() -> Self {
        Self {
            latest: AtomicU64::new(NONE),
            replacements: Replacements {
                count: AtomicU64::new(0),
                ring: [const {
                    KeptTick {
                        tick: AtomicU64::new(NONE),
                        since: AtomicU64::new(0),
                    }
                }; KEPT_TICKS],
            },
        }
    }

    /// Returns the latest tick, as a raw clock reading. `None` while the ticker is stopped.
    #[inline]
    pub(crate) fn latest(&self) -> Option<u64> {
        let tick = self.latest.load(Relaxed);
        (tick != NONE).then_some(tick)
    }

    /// Returns whether a tick is still the latest.
    #[inline]
    pub(crate) fn is_latest(&self, tick: u64) -> bool {
        self.latest.load(Relaxed) == tick
    }

    /// Publishes a tick. Ticker only.
    pub(crate) fn publish(&self, read_clock: impl Fn() -> u64) {
        self.replace(read_clock(), read_clock);
    }

    /// Takes the tick away, because the ticker stops. Ticker only.
    pub(crate) fn stop(&self, read_clock: impl Fn() -> u64) {
        if self.latest.load(Relaxed) != NONE {
            self.replace(NONE, read_clock);
        }
    }

    fn replace(&self, tick: u64, read_clock: impl Fn() -> u64) {
        self.latest.store(tick, Release);
        // Read after the store, because the operating system may have interrupted this thread just before it.
        let since = read_clock();
        let count = self.replacements.count.load(Relaxed);
        let entry = &self.replacements.ring[count as usize % KEPT_TICKS];
        entry
            .tick
            .store(if tick == NONE { since } else { tick }, Relaxed);
        entry.since.store(since, Relaxed);
        self.replacements.count.store(count + 1, Release); // model: tick-remember
    }

    /// Returns a moment by which all polls had begun that had loaded `tick`.
    ///
    /// `None` if the tick is still the latest. Returns the tick itself if the ring no longer has it, or if the clock
    /// went back.
    pub(crate) fn replaced(&self, tick: u64) -> Option<u64> {
        self.since(tick).map(|since| since.max(tick))
    }

    fn since(&self, tick: u64) -> Option<u64> {
        let count = self.replacements.count.load(Acquire); // model: tick-recall
        let oldest = count.saturating_sub(KEPT_TICKS as u64 - 1);
        let mut since = None;
        for number in (oldest..count).rev() {
            let entry = &self.replacements.ring[number as usize % KEPT_TICKS];
            if entry.tick.load(Relaxed) <= tick {
                return since;
            }
            since = Some(entry.since.load(Relaxed));
        }
        // The tick lies before the oldest one in the ring, or before the first of all.
        Some(if oldest == 0 { since? } else { tick })
    }
}

impl std::fmt::Debug for CoarseClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CoarseClock").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(shotclock_loom)))]
mod tests {
    use super::*;

    fn ticks_at(moments: impl IntoIterator<Item = u64>) -> CoarseClock {
        let ticks = CoarseClock::new();
        for moment in moments {
            // The tick is surely published 3 after its reading.
            let readings = std::cell::Cell::new(moment);
            ticks.publish(|| readings.replace(moment + 3));
        }
        ticks
    }

    #[test]
    fn replaced_returns_when_the_next_tick_was_published() {
        let ticks = ticks_at([100, 200, 350]);
        assert_eq!(ticks.latest(), Some(350));
        assert_eq!(ticks.replaced(100), Some(203));
        assert_eq!(ticks.replaced(150), Some(203));
        assert_eq!(ticks.replaced(200), Some(353));
        assert_eq!(ticks.replaced(350), None);
        assert_eq!(ticks.replaced(50), Some(103));
    }

    #[test]
    fn latest_without_a_ticker_is_none() {
        assert_eq!(CoarseClock::new().latest(), None);
        assert_eq!(CoarseClock::new().replaced(7), None);
        let ticks = ticks_at([100]);
        ticks.stop(|| 170);
        ticks.stop(|| 180);
        assert_eq!((ticks.latest(), ticks.replaced(100)), (None, Some(170)));
        assert!(!ticks.is_latest(100));
    }

    #[test]
    fn replaced_after_a_clock_was_set_back_is_not_before_the_tick() {
        let ticks = ticks_at([100, 200]);
        // It is set back between the two readings of one tick, and once more between two ticks.
        let readings = std::cell::Cell::new(300);
        ticks.publish(|| readings.replace(20));
        assert_eq!(ticks.replaced(200), Some(200));
        ticks.publish(|| 10);
        for tick in [100, 200, 300] {
            assert!(ticks.replaced(tick).is_none_or(|since| since >= tick));
        }
    }

    #[test]
    fn replaced_of_a_forgotten_tick_is_the_tick() {
        let last = 2 * KEPT_TICKS as u64;
        let ticks = ticks_at((1..=last).map(|number| number * 10));
        assert_eq!(ticks.replaced(50), Some(50));
        assert_eq!(ticks.replaced(last * 10 - 20), Some(last * 10 - 7));
    }
}

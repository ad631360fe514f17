//! Floor 1: the one place that knows where time comes from.

use std::time::Duration;

/// Nanoseconds are `raw * scale >> SHIFT`.
const SHIFT: u32 = 40;

/// The time of every clock that is not mocked.
const MACHINE: u64 = 0;

/// A duration in nanoseconds. What is too long for them, 584 years, is as long as they tell.
pub(crate) fn nanos_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A clock that is cheap to read twice a poll.
///
/// [`raw`](Self::raw) is the fastest counter that the machine has (the time stamp counter where it
/// is invariant, `CLOCK_MONOTONIC` elsewhere); only differences of it mean anything, and only
/// [`nanos_between`](Self::nanos_between) gives them a unit. The mocked clock of the tests is a
/// variant inside `quanta`, so no type parameter leaks from here into the public types.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    source: quanta::Clock,
    /// Asked of `quanta` once, because its own conversion looks up each time what kind of clock it
    /// is and how far to shift: 2 ns of a poll.
    scale: u64,
    origin: u64,
    /// Which time it tells: 0 is that of the machine.
    time: u64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self::telling(quanta::Clock::new(), MACHINE)
    }

    /// A clock that is mocked. Each tells a time of its own.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn over(source: quanta::Clock) -> Self {
        static MOCKED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(MACHINE);
        let before = MOCKED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Self::telling(source, before + 1)
    }

    fn telling(source: quanta::Clock, time: u64) -> Self {
        let scale = source.delta_as_nanos(0, 1 << SHIFT);
        let origin = source.raw();
        Self {
            source,
            scale,
            origin,
            time,
        }
    }

    /// Whether readings of the two can be compared.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.time == other.time
    }

    /// Whether it tells the time of the machine, as the operating system's own clocks do.
    pub(crate) fn is_real(&self) -> bool {
        self.time == MACHINE
    }

    #[inline]
    pub(crate) fn raw(&self) -> u64 {
        self.source.raw()
    }

    /// Nanoseconds from `start` to `end`, both raw readings; 0 if the counter went backwards.
    #[inline]
    pub(crate) fn nanos_between(&self, start: u64, end: u64) -> u64 {
        let raw = u128::from(end.saturating_sub(start));
        ((raw * u128::from(self.scale)) >> SHIFT) as u64
    }

    /// Nanoseconds since this clock was made.
    pub(crate) fn nanos(&self) -> u64 {
        self.nanos_between(self.origin, self.raw())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mocked_clock_is_in_nanoseconds() {
        let (source, time) = quanta::Clock::mock();
        let clock = Clock::over(source);
        for nanos in [0, 1, 7, 1_000_000_007, u64::MAX / 4] {
            let start = clock.raw();
            time.increment(nanos);
            assert_eq!(clock.nanos_between(start, clock.raw()), nanos);
            assert_eq!(clock.nanos_between(start + nanos + 1, start), 0);
        }
    }

    #[test]
    fn our_conversion_agrees_with_the_clocks_own() {
        let clock = Clock::new();
        for raw in [1, 1_000, 3_000_000_000, 1 << 50] {
            let (ours, theirs) = (
                clock.nanos_between(0, raw),
                clock.source.delta_as_nanos(0, raw),
            );
            assert!(
                ours.abs_diff(theirs) <= 1 + theirs / 1_000_000_000,
                "{ours} {theirs}"
            );
        }
    }
}

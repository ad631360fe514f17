//! Floor 1: the source of time.

use std::time::Duration;

/// Bits of fraction in a clock's scale: nanoseconds are `raw * scale >> SCALE_BITS`. With 40 bits the rounding of the
/// scale adds less than 1 ns in 2^40 counts, which are 6 minutes at 3 GHz.
const SCALE_BITS: u32 = 40;

/// The [`Clock::timeline`] of every clock that is not mocked.
const MACHINE_TIMELINE: u64 = 0;

/// Returns a duration in nanoseconds, at most `u64::MAX` (584 years).
pub(crate) fn nanos_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Reads the fastest counter of the machine: cheap enough for two readings a poll.
///
/// The counter is the time stamp counter where it is invariant, and `CLOCK_MONOTONIC` elsewhere. Only differences
/// of [`raw`](Self::raw) readings mean anything, and only [`nanos_between`](Self::nanos_between) gives them a unit.
/// The mocked clock of the tests is a variant inside `quanta`, so no type parameter leaks into the public types.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    source: quanta::Clock,
    /// Read from `quanta` once. Its own conversion looks up the kind of clock and the shift each time, which
    /// costs 2 ns a poll.
    scale: u64,
    origin: u64,
    /// Clocks of one timeline can be compared. 0 is the machine's; each mocked clock has its own.
    timeline: u64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self::with_timeline(quanta::Clock::new(), MACHINE_TIMELINE)
    }

    /// Wraps a mocked clock, with a timeline of its own.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn mocked(source: quanta::Clock) -> Self {
        static MOCKED: std::sync::atomic::AtomicU64 =
            std::sync::atomic::AtomicU64::new(MACHINE_TIMELINE);
        let before = MOCKED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Self::with_timeline(source, before + 1)
    }

    fn with_timeline(source: quanta::Clock, timeline: u64) -> Self {
        let scale = source.delta_as_nanos(0, 1 << SCALE_BITS);
        let origin = source.raw();
        Self {
            source,
            scale,
            origin,
            timeline,
        }
    }

    /// Returns whether readings of both clocks can be compared.
    pub(crate) fn is_comparable_with(&self, other: &Self) -> bool {
        self.timeline == other.timeline
    }

    /// Returns whether the clock follows the machine's time, as the operating system's clocks do.
    pub(crate) fn is_real(&self) -> bool {
        self.timeline == MACHINE_TIMELINE
    }

    #[inline]
    pub(crate) fn raw(&self) -> u64 {
        self.source.raw()
    }

    /// Returns the nanoseconds from `start` to `end`, both raw readings. 0 if the counter went backwards.
    #[inline]
    pub(crate) fn nanos_between(&self, start: u64, end: u64) -> u64 {
        let raw = u128::from(end.saturating_sub(start));
        ((raw * u128::from(self.scale)) >> SCALE_BITS) as u64
    }

    /// Returns the nanoseconds since this clock was made.
    pub(crate) fn nanos(&self) -> u64 {
        self.nanos_between(self.origin, self.raw())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanos_between_of_a_mocked_clock_is_exact() {
        let (source, time) = quanta::Clock::mock();
        let clock = Clock::mocked(source);
        for nanos in [0, 1, 7, 1_000_000_007, u64::MAX / 4] {
            let start = clock.raw();
            time.increment(nanos);
            assert_eq!(clock.nanos_between(start, clock.raw()), nanos);
            assert_eq!(clock.nanos_between(start + nanos + 1, start), 0);
        }
    }

    #[test]
    fn nanos_between_agrees_with_quantas_conversion() {
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

//! Floor 1: the source of time.

#[cfg(any(test, feature = "testing"))]
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst},
};
use std::sync::{LazyLock, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::sys::{has_steady_counter, read_counter};

/// Bits of fraction in a clock's scale: nanoseconds are `raw * scale >> SCALE_BITS`. With 40 bits the rounding of the
/// scale adds less than 1 ns in 2^40 counts, which are 6 minutes at 3 GHz.
const SCALE_BITS: u32 = 40;

/// The scale of a source whose readings are nanoseconds.
const SCALE_OF_NANOS: u64 = 1 << SCALE_BITS;

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
/// The mocked clock of the tests is a variant, so no type parameter leaks into the public types.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    source: Source,
    scale: u64,
    origin: u64,
    /// Clocks of one timeline can be compared. 0 is the machine's; each mocked clock has its own.
    timeline: u64,
}

#[derive(Clone, Debug)]
enum Source {
    Counter,
    Monotonic,
    #[cfg(any(test, feature = "testing"))]
    Mock(Arc<MockTime>),
}

impl Clock {
    pub(crate) fn new() -> Self {
        static COUNTER_SCALE: OnceLock<u64> = OnceLock::new();
        if has_steady_counter() {
            let scale = *COUNTER_SCALE.get_or_init(measure_counter);
            Self::with_timeline(Source::Counter, scale, MACHINE_TIMELINE)
        } else {
            Self::with_timeline(Source::Monotonic, SCALE_OF_NANOS, MACHINE_TIMELINE)
        }
    }

    /// Makes a clock that stands still, with a timeline of its own.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn mock() -> (Self, Arc<MockTime>) {
        static MOCKED: AtomicU64 = AtomicU64::new(MACHINE_TIMELINE);
        let time = Arc::new(MockTime::default());
        let source = Source::Mock(Arc::clone(&time));
        let timeline = MOCKED.fetch_add(1, SeqCst) + 1;
        (Self::with_timeline(source, SCALE_OF_NANOS, timeline), time)
    }

    fn with_timeline(source: Source, scale: u64, timeline: u64) -> Self {
        let mut clock = Self {
            source,
            scale,
            origin: 0,
            timeline,
        };
        clock.origin = clock.raw();
        clock
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
        match &self.source {
            Source::Counter => read_counter(),
            Source::Monotonic => monotonic_nanos(),
            #[cfg(any(test, feature = "testing"))]
            Source::Mock(time) => time.nanos(),
        }
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

/// Returns the nanoseconds since the first call.
fn monotonic_nanos() -> u64 {
    static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
    nanos_of(FIRST.elapsed())
}

/// One moment on the counter and on the operating system's clock.
struct Moment {
    counter: u64,
    instant: Instant,
    /// How far apart the two readings may be, in units of the counter.
    error: u64,
}

impl Moment {
    /// Reads both clocks, several times, and returns the pair of readings that are the closest together.
    fn now() -> Self {
        /// An interrupt between two readings spoils one pair, but not all of them.
        const PAIRS: usize = 16;
        let pair = |_| {
            let before = read_counter();
            let instant = Instant::now();
            let error = read_counter().saturating_sub(before);
            Self {
                counter: before + error / 2,
                instant,
                error,
            }
        };
        let first = pair(0);
        (1..PAIRS).map(pair).fold(first, |best, other| {
            if other.error < best.error {
                other
            } else {
                best
            }
        })
    }
}

/// Measures the counter against the operating system's clock, and returns its scale.
fn measure_counter() -> u64 {
    /// Two readings that are off by 20 ns each make an error of 40 millionths over this time, and `build` waits for it
    /// once.
    const MEASURED: Duration = Duration::from_millis(1);
    let start = Moment::now();
    thread::sleep(MEASURED);
    let end = Moment::now();
    let nanos = end.instant.duration_since(start.instant).as_nanos();
    let ticks = u128::from(end.counter.saturating_sub(start.counter)).max(1);
    u64::try_from((nanos << SCALE_BITS) / ticks).unwrap_or(u64::MAX)
}

/// The time of a mocked clock.
#[cfg(any(test, feature = "testing"))]
#[derive(Debug, Default)]
pub(crate) struct MockTime {
    nanos: AtomicU64,
}

#[cfg(any(test, feature = "testing"))]
impl MockTime {
    fn nanos(&self) -> u64 {
        self.nanos.load(SeqCst)
    }

    /// Advances the clock. Panics if it comes to more than `u64::MAX` nanoseconds, which is 584 years.
    pub(crate) fn increment(&self, time: Duration) {
        self.change(|now| now.checked_add(u64::try_from(time.as_nanos()).ok()?));
    }

    /// Turns the clock back. Panics if it comes to less than zero.
    #[cfg(test)]
    pub(crate) fn decrement(&self, time: Duration) {
        self.change(|now| now.checked_sub(u64::try_from(time.as_nanos()).ok()?));
    }

    fn change(&self, changed: impl Fn(u64) -> Option<u64>) {
        // Another thread may read the time, and must then see what this one did before.
        let result = self.nanos.fetch_update(SeqCst, SeqCst, changed);
        result.expect("a mocked clock shows 0 to 584 years");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanos_between_of_a_mocked_clock_is_exact() {
        let (clock, time) = Clock::mock();
        for nanos in [0, 1, 7, 1_000_000_007, u64::MAX / 4] {
            let start = clock.raw();
            time.increment(Duration::from_nanos(nanos));
            assert_eq!(clock.nanos_between(start, clock.raw()), nanos);
            assert_eq!(clock.nanos_between(start + nanos + 1, start), 0);
        }
    }

    #[test]
    fn nanos_between_of_the_machines_clock_agrees_with_instant() {
        let clock = Clock::new();
        // The system may stop the thread between two readings, so each reading of the clock has one before and after.
        let read = || (Instant::now(), clock.raw(), Instant::now());
        let (before_start, start, after_start) = read();
        thread::sleep(Duration::from_millis(50));
        let (before_end, end, after_end) = read();
        let nanos = clock.nanos_between(start, end);
        let least = nanos_of(before_end - after_start);
        let most = nanos_of(after_end - before_start);
        assert!(nanos >= least - least / 100, "{nanos} {least}");
        assert!(nanos <= most + most / 100, "{nanos} {most}");
    }

    #[cfg(not(any(miri, shotclock_loom)))]
    #[test]
    fn measure_counter_twice_gives_one_rate() {
        if has_steady_counter() {
            let (first, second) = (measure_counter(), measure_counter());
            assert!(first.abs_diff(second) < first / 100, "{first} {second}");
        }
    }
}

//! Floor 1: the one place that knows where time comes from.

/// A clock that is cheap to read twice a poll.
///
/// [`raw`](Self::raw) is the fastest counter that the machine has (the time stamp counter where it
/// is invariant, `CLOCK_MONOTONIC` elsewhere); only differences of it mean anything, and only
/// [`nanos_between`](Self::nanos_between) gives them a unit. The mocked clock of the tests is a
/// variant inside `quanta`, so no type parameter leaks from here into the public types.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    source: quanta::Clock,
    origin: u64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self::over(quanta::Clock::new())
    }

    pub(crate) fn over(source: quanta::Clock) -> Self {
        let origin = source.raw();
        Self { source, origin }
    }

    #[inline]
    pub(crate) fn raw(&self) -> u64 {
        self.source.raw()
    }

    /// Nanoseconds from `start` to `end`, both raw readings; 0 if the counter went backwards.
    #[inline]
    pub(crate) fn nanos_between(&self, start: u64, end: u64) -> u64 {
        self.source.delta_as_nanos(start, end)
    }

    /// Nanoseconds since this clock was made.
    pub(crate) fn nanos(&self) -> u64 {
        self.nanos_between(self.origin, self.raw())
    }
}

//! Decides when a pace is due: by a count, or by time (`slice`).

/// Decides when a [`Pace`](crate::coop::Pace) is due: [`Count`] or [`Slice`](crate::coop::Slice). The trait is sealed.
pub trait Rule: sealed::Rule {}

impl<R: sealed::Rule> Rule for R {}

pub(super) mod sealed {
    pub trait Rule {
        /// Returns the value down to which the ticks are counted. If it increases, the next tick is a check.
        fn floor() -> u64;

        /// Returns the ticks until the next check, after `ticks` since the last one. `None` if the pace is due.
        fn check(&mut self, ticks: u64) -> Option<u64>;

        /// Returns the same, when the task runs again after a yield.
        fn resume(&mut self) -> Option<u64>;

        /// Notes that the task yields.
        fn leave(&mut self);
    }
}

/// Makes a pace due after a number of ticks. [`yield_every`](crate::yield_every()) uses it.
#[derive(Clone, Debug)]
pub struct Count {
    pub(super) every: u64,
}

impl sealed::Rule for Count {
    #[inline]
    fn floor() -> u64 {
        0
    }

    fn check(&mut self, _: u64) -> Option<u64> {
        None
    }

    fn resume(&mut self) -> Option<u64> {
        Some(self.every)
    }

    fn leave(&mut self) {}
}

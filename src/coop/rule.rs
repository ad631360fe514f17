//! By what a pace goes: a count, or time (`slice`).

/// What a [`Pace`](crate::coop::Pace) goes by: [`Count`] or [`Slice`](crate::coop::Slice). Nothing else can be.
pub trait Rule: sealed::Rule {}

impl<R: sealed::Rule> Rule for R {}

pub(super) mod sealed {
    pub trait Rule {
        /// What the ticks are counted down to. Where it jumps up, it is time to look.
        fn floor() -> u64;

        /// After so many ticks: how many are to come until the next look. `None` if the pace is due.
        fn look(&mut self, ticks: u64) -> Option<u64>;

        /// The worker was given back, and is had again.
        fn resume(&mut self) -> Option<u64>;

        /// The worker is given back.
        fn leave(&mut self);
    }
}

/// By count: what [`yield_every`](crate::yield_every()) goes by.
#[derive(Clone, Debug)]
pub struct Count {
    pub(super) every: u64,
}

impl sealed::Rule for Count {
    #[inline]
    fn floor() -> u64 {
        0
    }

    fn look(&mut self, _: u64) -> Option<u64> {
        None
    }

    fn resume(&mut self) -> Option<u64> {
        Some(self.every)
    }

    fn leave(&mut self) {}
}

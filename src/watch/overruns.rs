//! How far over their budget the polls of a watch are expected to run, and how many were contained.
//!
//! The estimate decays with each poll that it expects to be slow and grows with each that was, so a watch that behaves
//! again is left alone after some dozens of polls, and one that never misbehaves costs a comparison.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A slow poll weighs an eighth, as in the estimate of TCP's round trips (RFC 6298).
const WEIGHT: u64 = 8;

/// The expectation of one watch.
#[derive(Debug, Default)]
pub(crate) struct Overruns {
    /// Nanoseconds over the budget. Updates of two threads at once may lose one: it is an estimate.
    expected: AtomicU64,
    contained: AtomicU64,
}

impl Overruns {
    #[inline]
    pub(crate) fn expected(&self) -> u64 {
        self.expected.load(Relaxed)
    }

    /// A poll ran over its budget by so many nanoseconds.
    pub(crate) fn add(&self, over: u64) {
        let expected = self.expected();
        self.expected
            .store(expected.saturating_add(over / WEIGHT), Relaxed);
    }

    /// A poll is contained.
    pub(crate) fn count_contained(&self) {
        self.contained.fetch_add(1, Relaxed);
    }

    /// A poll begins that is expected to overrun.
    pub(crate) fn forget(&self) {
        let expected = self.expected();
        // Rounded up, so that it comes to zero.
        self.expected
            .store(expected - expected.div_ceil(WEIGHT), Relaxed);
    }

    pub(crate) fn contained(&self) -> u64 {
        self.contained.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_what_a_poll_overruns_on_average_and_forgets() {
        let overruns = Overruns::default();
        let polls = |over: &[u64]| {
            for over in over.iter().cycle().take(400) {
                overruns.count_contained();
                overruns.forget();
                overruns.add(*over);
            }
            overruns.expected()
        };
        let within = |expected: u64, from: u64, to: u64| assert!((from..to).contains(&expected));
        within(polls(&[1_000_000]), 990_000, 1_010_000);
        within(polls(&[0, 1_000_000]), 400_000, 600_000);
        assert_eq!(polls(&[0]), 0);
        assert_eq!(overruns.contained(), 1_200);
    }
}

//! Estimates how far the next poll of a watch will exceed its budget, and counts contained polls.
//!
//! The estimate decays with each poll that it expects to be slow, and grows with each slow poll. So after some dozens
//! of fast polls a watch is no longer contained, and a watch without slow polls costs one comparison.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A slow poll weighs one part in 8, as in TCP's estimate of the round-trip time (RFC 6298).
const WEIGHT_DIVISOR: u64 = 8;

/// The estimate of one watch.
#[derive(Debug, Default)]
pub(crate) struct ExpectedOverrun {
    /// Time over the budget. Two updates at once may lose one, which an estimate tolerates.
    nanos: AtomicU64,
    contained: AtomicU64,
}

impl ExpectedOverrun {
    #[inline]
    pub(crate) fn nanos(&self) -> u64 {
        self.nanos.load(Relaxed)
    }

    /// Records a poll that exceeded its budget by `over_nanos`.
    pub(crate) fn record(&self, over_nanos: u64) {
        let grown = self.nanos().saturating_add(over_nanos / WEIGHT_DIVISOR);
        self.nanos.store(grown, Relaxed);
    }

    /// Counts a contained poll.
    pub(crate) fn count_contained(&self) {
        self.contained.fetch_add(1, Relaxed);
    }

    /// Lowers the estimate, at the begin of a poll that is expected to exceed its budget.
    pub(crate) fn decay(&self) {
        let nanos = self.nanos();
        // Rounded up, so that the estimate reaches zero.
        let decayed = nanos - nanos.div_ceil(WEIGHT_DIVISOR);
        self.nanos.store(decayed, Relaxed);
    }

    pub(crate) fn contained(&self) -> u64 {
        self.contained.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimate_follows_the_mean_overrun_and_decays_to_zero() {
        let estimate = ExpectedOverrun::default();
        let polls = |over: &[u64]| {
            for over in over.iter().cycle().take(400) {
                estimate.count_contained();
                estimate.decay();
                estimate.record(*over);
            }
            estimate.nanos()
        };
        let within = |expected: u64, from: u64, to: u64| assert!((from..to).contains(&expected));
        within(polls(&[1_000_000]), 990_000, 1_010_000);
        within(polls(&[0, 1_000_000]), 400_000, 600_000);
        assert_eq!(polls(&[0]), 0);
        assert_eq!(estimate.contained(), 1_200);
    }
}

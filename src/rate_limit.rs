//! Floor 1: a limit on events a second, and the number of events that it suppressed.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const NANOS_PER_SECOND: u64 = 1_000_000_000;
const USED_BITS: u32 = 32;
const USED_MASK: u64 = (1 << USED_BITS) - 1;

/// A time that is at most this far before the current window belongs to it. Two threads may read the clock in one order and
/// arrive here in the other. An earlier time comes from a clock that was set back.
const MAX_LATE_SECONDS: u64 = 2;

/// A poll that lasts for this number of budgets is reported whatever the limit says, because it is no noise.
const LONG_POLL_BUDGETS: u64 = 10;

/// The shortest such poll. A thread then has at most a hundred of these reports a second, however small the budget is.
const MIN_LONG_POLL_NANOS: u64 = 10_000_000;

/// Returns the nanoseconds from which the limit never suppresses a poll or a worker.
pub(crate) fn never_suppressed_from(budget_nanos: u64) -> u64 {
    budget_nanos
        .saturating_mul(LONG_POLL_BUDGETS)
        .max(MIN_LONG_POLL_NANOS)
}

/// Admits a number of events in each whole second of a clock.
///
/// `window` packs the second (upper 32 bits, which wrap after 136 years) and the events admitted in it (lower 32). So
/// one compare-and-swap decides, and no thread waits. Two bursts around the boundary of a second are both admitted.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    window: AtomicU64,
    suppressed: AtomicU64,
}

impl Limiter {
    /// Returns whether to admit one more event at `nanos`, and counts it.
    pub(crate) fn admits(&self, nanos: u64, per_second: u32) -> bool {
        let now = (nanos / NANOS_PER_SECOND) & USED_MASK;
        let next = |window: u64| {
            let current = window >> USED_BITS;
            let is_late = now < current && current - now <= MAX_LATE_SECONDS;
            let second = if is_late { current } else { now };
            let used = if second == current {
                window & USED_MASK
            } else {
                0
            };
            (used < u64::from(per_second)).then_some(second << USED_BITS | (used + 1))
        };
        self.window.fetch_update(Relaxed, Relaxed, next).is_ok()
    }

    /// Counts events that were not admitted, or that were lost later.
    pub(crate) fn suppress(&self, count: u64) {
        self.suppressed.fetch_add(count, Relaxed);
    }

    /// Returns the number of events suppressed since the last call.
    pub(crate) fn take_suppressed(&self) -> u64 {
        self.suppressed.swap(0, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the number of admitted events, at five a second.
    fn passed(limiter: &Limiter, moments: impl Iterator<Item = u64>) -> usize {
        moments.filter(|nanos| limiter.admits(*nanos, 5)).count()
    }

    #[test]
    fn limiter_within_one_second_admits_its_number() {
        let limiter = Limiter::default();
        let within = |second: u64| (0..10).map(move |n| second * NANOS_PER_SECOND + n * 99_999_999);
        assert_eq!(passed(&limiter, within(3)), 5);
        assert_eq!(passed(&limiter, within(4)), 5);
    }

    #[test]
    fn limiter_with_moments_out_of_order_opens_no_second_twice() {
        let limiter = Limiter::default();
        let moments = (0..1_000).map(|n| (5 - n % 2) * NANOS_PER_SECOND);
        assert_eq!(passed(&limiter, moments), 5);
        let moments = (0..1_000).map(|n| (5 - n % (MAX_LATE_SECONDS + 1)) * NANOS_PER_SECOND);
        assert_eq!(passed(&limiter, moments), 0);
    }

    #[test]
    fn limiter_after_a_clock_that_went_back_admits_again() {
        let limiter = Limiter::default();
        let burst = |second: u64| (0..10).map(move |_| second * NANOS_PER_SECOND);
        assert_eq!(passed(&limiter, burst(3_600)), 5);
        assert_eq!(passed(&limiter, burst(10)), 5);
        assert_eq!(passed(&limiter, burst(11)), 5);
    }

    #[test]
    fn limiter_of_zero_a_second_admits_nothing() {
        let limiter = Limiter::default();
        assert!((0..4).all(|second| !limiter.admits(second * NANOS_PER_SECOND, 0)));
    }

    #[test]
    fn take_suppressed_twice_returns_zero() {
        let limiter = Limiter::default();
        limiter.suppress(1);
        limiter.suppress(2);
        assert_eq!(limiter.take_suppressed(), 3);
        assert_eq!(limiter.take_suppressed(), 0);
    }

    #[test]
    fn limiter_under_contention_admits_no_more_than_its_number() {
        let limiter = Limiter::default();
        let passed = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let admitted = (0..100_000).filter(|_| limiter.admits(7, 5)).count();
                    passed.fetch_add(admitted as u64, Relaxed);
                });
            }
        });
        assert_eq!(passed.into_inner(), 5);
    }
}

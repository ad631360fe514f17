//! Floor 1: at most so many a second, and how many were left out since.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const NANOS_PER_SECOND: u64 = 1_000_000_000;
const USED_BITS: u32 = 32;
const USED_MASK: u64 = (1 << USED_BITS) - 1;

/// Lets through a number of events in each whole second of a clock.
///
/// `window` packs the second (upper 32 bits; it wraps after 136 years) and how many were let
/// through in it (lower 32), so that one compare-and-swap decides and nobody waits. Because seconds
/// are whole, two bursts on either side of a boundary may be closer than a second.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    window: AtomicU64,
    left_out: AtomicU64,
}

impl Limiter {
    /// Whether one more may pass at `nanos`; if so, how many were left out since the last that did.
    pub(crate) fn admit(&self, nanos: u64, per_second: u32) -> Option<u64> {
        let second = (nanos / NANOS_PER_SECOND) & USED_MASK;
        let next = |window: u64| {
            // A thread may come late with a moment of the second before; it does not open that again.
            let second = second.max(window >> USED_BITS);
            let used = if window >> USED_BITS == second {
                window & USED_MASK
            } else {
                0
            };
            (used < u64::from(per_second)).then_some(second << USED_BITS | (used + 1))
        };
        match self.window.fetch_update(Relaxed, Relaxed, next) {
            Ok(_) => Some(self.left_out.swap(0, Relaxed)),
            Err(_) => {
                self.leave_out(1);
                None
            }
        }
    }

    /// Counts what did not pass, or was let through and then got lost.
    pub(crate) fn leave_out(&self, count: u64) {
        self.left_out.fetch_add(count, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_a_second_and_the_next_one_says_how_many_were_left_out() {
        let limiter = Limiter::default();
        for _ in 0..5 {
            assert_eq!(limiter.admit(3 * NANOS_PER_SECOND, 5), Some(0));
        }
        for nanos in [0, 1, NANOS_PER_SECOND - 1] {
            assert_eq!(limiter.admit(3 * NANOS_PER_SECOND + nanos, 5), None);
        }
        assert_eq!(limiter.admit(4 * NANOS_PER_SECOND, 5), Some(3));
        assert_eq!(limiter.admit(4 * NANOS_PER_SECOND, 5), Some(0));
    }

    #[test]
    fn moments_that_come_out_of_order_open_no_second_twice() {
        let limiter = Limiter::default();
        let passed = (0..1_000).filter(|n| {
            let nanos = (5 - n % 2) * NANOS_PER_SECOND;
            limiter.admit(nanos, 5).is_some()
        });
        assert_eq!(passed.count(), 5);
    }

    #[test]
    fn none_a_second_lets_nothing_through_and_counts_all() {
        let limiter = Limiter::default();
        for second in 0..4 {
            assert_eq!(limiter.admit(second * NANOS_PER_SECOND, 0), None);
        }
        assert_eq!(limiter.admit(9 * NANOS_PER_SECOND, 1), Some(4));
    }

    #[test]
    fn under_contention_every_event_is_let_through_or_counted() {
        let limiter = Limiter::default();
        let (passed, told) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for n in 0..100_000 {
                        if let Some(left_out) = limiter.admit(n * 20_000, 5) {
                            passed.fetch_add(1, Relaxed);
                            told.fetch_add(left_out, Relaxed);
                        }
                    }
                });
            }
        });
        let rest = limiter.admit(u64::from(u32::MAX) * NANOS_PER_SECOND, 5);
        let all = passed.into_inner() + told.into_inner() + rest.unwrap();
        assert_eq!(all, 400_000);
    }
}

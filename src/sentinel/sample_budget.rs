//! Bounds the time in which one scan waits for threads to answer.

use std::time::Duration;

/// The time of one scan. It is half the time after which the ticker takes the sentinel to be held up. Polls that begin
/// in this time are seen late by no more than this.
const SCAN_BUDGET: Duration = Duration::from_millis(50);

/// The least wait that makes sense: a scheduled thread answers within it.
const MIN_WAIT: Duration = Duration::from_micros(200);

/// One thread may use a quarter of the rest. So even after several threads without an answer, there is time to request the
/// stacks of the others.
const SHARE_DIVISOR: u32 = 4;

/// The time that is left in a scan.
pub(super) struct SampleBudget {
    left: Duration,
}

impl SampleBudget {
    pub(super) fn of_a_scan() -> Self {
        Self { left: SCAN_BUDGET }
    }

    /// Returns the time for the next thread, at most `wanted`. Zero if it gets no request.
    pub(super) fn for_one(&self, wanted: Duration) -> Duration {
        let share = self.left / SHARE_DIVISOR;
        if share < MIN_WAIT {
            Duration::ZERO
        } else {
            share.min(wanted)
        }
    }

    pub(super) fn spend(&mut self, waited: Duration) {
        self.left = self.left.saturating_sub(waited);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits for threads that never answer until no time is left. Returns their number and the sum.
    fn spend_all(wanted: Duration) -> (u32, Duration) {
        let mut budget = SampleBudget::of_a_scan();
        let (mut requested, mut waited) = (0, Duration::ZERO);
        while !budget.for_one(wanted).is_zero() {
            let one = budget.for_one(wanted);
            budget.spend(one);
            (requested, waited) = (requested + 1, waited + one);
        }
        (requested, waited)
    }

    #[test]
    fn for_one_with_threads_that_never_answer_stays_within_the_scan_budget() {
        for wanted in [5, 50, 1_000].map(Duration::from_millis) {
            let (requested, waited) = spend_all(wanted);
            assert!(waited <= SCAN_BUDGET, "{waited:?}");
            assert!(requested >= 10, "{requested} of {wanted:?}");
        }
    }

    #[test]
    fn for_one_is_at_most_the_wanted_time() {
        let wanted = Duration::from_millis(5);
        assert_eq!(SampleBudget::of_a_scan().for_one(wanted), wanted);
    }
}

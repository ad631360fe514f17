//! How long one look may wait for threads to answer.

use std::time::Duration;

/// In all of one look. Half of what passes for a sentinel that is held up, and a few of the shortest
/// budgets: polls that begin in that time are seen late by no more than that.
const OF_A_LOOK: Duration = Duration::from_millis(50);

/// A thread that is run answers in less; to wait for a shorter time is to ask in vain.
const LEAST: Duration = Duration::from_micros(200);

/// No thread may use up more than this part of what is left, so that those that answer at once are all
/// asked, however many do not answer before them.
const SHARE: u32 = 4;

/// What is left of it.
pub(super) struct Patience {
    left: Duration,
}

impl Patience {
    pub(super) fn of_a_look() -> Self {
        Self { left: OF_A_LOOK }
    }

    /// How long the next thread may take, of at most `wanted`. Zero if it is not to be asked.
    pub(super) fn for_one(&self, wanted: Duration) -> Duration {
        let share = self.left / SHARE;
        if share < LEAST {
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

    /// Waits for as many threads that never answer as it may, and says for how many and how long.
    fn spend_all(wanted: Duration) -> (u32, Duration) {
        let mut patience = Patience::of_a_look();
        let (mut asked, mut waited) = (0, Duration::ZERO);
        while !patience.for_one(wanted).is_zero() {
            let one = patience.for_one(wanted);
            patience.spend(one);
            (asked, waited) = (asked + 1, waited + one);
        }
        (asked, waited)
    }

    #[test]
    fn threads_that_never_answer_take_no_more_than_one_look_may_wait() {
        for wanted in [5, 50, 1_000].map(Duration::from_millis) {
            let (asked, waited) = spend_all(wanted);
            assert!(waited <= OF_A_LOOK, "{waited:?}");
            assert!(asked >= 10, "{asked} of {wanted:?}");
        }
    }

    #[test]
    fn a_thread_is_waited_for_no_longer_than_wanted() {
        let wanted = Duration::from_millis(5);
        assert_eq!(Patience::of_a_look().for_one(wanted), wanted);
    }
}

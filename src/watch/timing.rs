//! How polls are timed.

use std::time::Duration;

use super::shortest_by_ticks;

/// So many ticks are in the shortest of the budgets that go by them.
const TICKS_IN_A_BUDGET: u64 = 4;

/// The shortest tick, and the longest, in nanoseconds. A thousand wake-ups of a thread in a second are what
/// can be afforded.
const SHORTEST: u64 = 1_000_000;
const LONGEST: u64 = 10_000_000;

/// How polls are timed.
///
/// # Examples
///
/// ```
/// use shotclock::{Timing, Watchdog};
///
/// let watchdog = Watchdog::builder().timing(Timing::Ticked).build()?;
/// # Ok::<(), shotclock::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Timing {
    /// The clock is read when a poll begins and when it ends.
    #[cfg_attr(not(shotclock_ticked), default)]
    Exact,
    /// The clock is read for one poll in 64, which stands for the others, and for those that turn out to be
    /// long.
    ///
    /// A thread of the watchdog's publishes the time, four times in the shortest budget (every 2.5 ms under
    /// one of 10 ms; never more often than each millisecond, nor less than each ten). A poll notes that
    /// *tick*, and whether it is still the latest at its end: then it was short, and is counted without
    /// having been timed.
    ///
    /// - How many polls there were is exact, and so is how many panicked.
    /// - Slow polls are found as under [`Exact`](Self::Exact), while they run and at their end, but what is
    ///   held against the budget is what surely was: up to a tick less than the poll took. A poll that is
    ///   over its budget by less than a tick may be found or not; one that is within it is not, unless slow
    ///   watched polls inside it are to be taken off.
    /// - The histogram and the busy time are an estimate without bias for polls shorter than a tick, each
    ///   of which counts like the sample before it (of its watch, on its thread). Polls longer than a tick
    ///   are counted one by one, and are in them with an error of at most half a tick.
    /// - The longest poll is the longest of those that were timed.
    /// - Under a budget of less than 4 ms, under a mocked clock, and inside of a poll that is timed itself,
    ///   polls are timed exactly; so are destructors, and what [`Watch::enter`](crate::Watch::enter) times.
    ///
    /// What it saves is in the table of the README. If that thread is held up, the one that looks at polls
    /// publishes the time, as often as the shortest budget. While the operating system runs neither of the
    /// two, a tick is as long as that.
    #[cfg_attr(shotclock_ticked, default)]
    Ticked,
}

impl Timing {
    /// Whether polls under such a budget, in nanoseconds, go by ticks.
    pub(super) fn is_by_ticks(self, budget: u64) -> bool {
        self == Self::Ticked && budget >= SHORTEST * TICKS_IN_A_BUDGET
    }
}

/// How many nanoseconds there are between two ticks at present; `None` if no watch goes by them.
pub(crate) fn tick_of() -> Option<u64> {
    shortest_by_ticks().map(tick_under)
}

/// The same where that is the shortest budget.
fn tick_under(shortest: Duration) -> u64 {
    let shortest = shortest.as_nanos() as u64;
    (shortest / TICKS_IN_A_BUDGET).clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_budget_has_the_exact_time() {
        assert!(!Timing::Ticked.is_by_ticks(3_999_999));
        assert!(Timing::Ticked.is_by_ticks(4_000_000));
        assert!(!Timing::Exact.is_by_ticks(u64::MAX));
    }

    #[test]
    fn there_are_four_ticks_in_a_budget_but_no_more_than_can_be_afforded() {
        let ticks = [1, 4, 10, 40, 1_000].map(|ms| tick_under(Duration::from_millis(ms)));
        let ns = [1_000_000, 1_000_000, 2_500_000, 10_000_000, 10_000_000];
        assert_eq!(ticks, ns);
        let _in_use = crate::watch::budgets::BudgetToken::new(10_000_000, true);
        assert!(tick_of().is_some_and(|tick| (SHORTEST..=2_500_000).contains(&tick)));
    }
}

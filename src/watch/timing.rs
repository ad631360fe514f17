//! The two ways to time polls, and the length of a tick.

use std::time::Duration;

use super::shortest_ticked;

/// Ticks within the shortest budget of ticked polls: a poll over budget is then late by a quarter of it at most.
const TICKS_PER_BUDGET: u64 = 4;

/// The shortest tick: the ticker wakes up 1,000 times a second at most.
const MIN_TICK_NANOS: u64 = 1_000_000;
/// The longest tick, which is also the error of a poll that is counted individually.
const MAX_TICK_NANOS: u64 = 10_000_000;

/// Selects how polls are timed.
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
    /// Reads the clock at the begin and at the end of each poll.
    #[cfg_attr(not(shotclock_ticked), default)]
    Exact,
    /// Reads the clock for one poll in 64, which stands for the others, and for long polls.
    ///
    /// A thread of the crate, the ticker, publishes the time four times in the shortest budget: every 2.5 ms for a
    /// budget of 10 ms, and at least every 10 ms and at most every 1 ms. A poll notes this *tick* at its begin. If it
    /// is still the latest at the end, the poll was short, and is counted without being timed.
    ///
    /// - The number of polls is exact, and so is the number of those that panicked.
    /// - Slow polls are found as under [`Exact`](Self::Exact), while they run and at their end. The charged time is a
    ///   lower bound: up to a tick less than the poll took. So a poll that exceeds its budget by less than a tick may
    ///   be missed. A poll within its budget is never slow.
    /// - The histogram and the busy time are unbiased estimates for polls shorter than a tick: each of these counts
    ///   like the sample before it, of the same watch and thread. Polls longer than a tick are counted individually,
    ///   with an error of at most half a tick.
    /// - The longest poll is the longest of those that were timed.
    /// - Polls are timed exactly under a budget of less than 4 ms, under a mocked clock, and inside an exactly timed
    ///   poll. The same holds for destructors and for sections of [`Watch::enter`](crate::Watch::enter).
    ///
    /// The README has a table of what it saves. If the ticker is held up, the sentinel publishes the time at its
    /// scans, as often as the shortest budget. While the operating system runs neither thread, the tick lasts.
    #[cfg_attr(shotclock_ticked, default)]
    Ticked,
}

impl Timing {
    /// Returns whether polls with this budget are ticked.
    pub(super) fn is_ticked(self, budget_nanos: u64) -> bool {
        self == Self::Ticked && budget_nanos >= MIN_TICK_NANOS * TICKS_PER_BUDGET
    }
}

/// Returns the nanoseconds between two ticks now. `None` if no watch is ticked.
pub(crate) fn tick_nanos() -> Option<u64> {
    shortest_ticked().map(tick_nanos_for)
}

/// Returns the nanoseconds between two ticks for a shortest budget.
fn tick_nanos_for(shortest: Duration) -> u64 {
    let shortest = shortest.as_nanos() as u64;
    (shortest / TICKS_PER_BUDGET).clamp(MIN_TICK_NANOS, MAX_TICK_NANOS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_ticked_under_a_short_budget_is_false() {
        assert!(!Timing::Ticked.is_ticked(3_999_999));
        assert!(Timing::Ticked.is_ticked(4_000_000));
        assert!(!Timing::Exact.is_ticked(u64::MAX));
    }

    #[test]
    fn tick_nanos_is_a_quarter_of_the_budget_within_its_bounds() {
        let ticks = [1, 4, 10, 40, 1_000].map(|ms| tick_nanos_for(Duration::from_millis(ms)));
        let ns = [1_000_000, 1_000_000, 2_500_000, 10_000_000, 10_000_000];
        assert_eq!(ticks, ns);
        let _in_use = crate::watch::budgets::BudgetToken::ticked(10_000_000);
        assert!(tick_nanos().is_some_and(|tick| (MIN_TICK_NANOS..=2_500_000).contains(&tick)));
    }
}

//! The statistics of watches, as users read them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{PollStatus, Totals, WatchCounters, poll_statuses};
use crate::clock::{Clock, nanos_of};
use crate::histogram::{BOUNDS_NANOS, Distribution};
use crate::text_table;

/// Holds what one watch has counted since it was made.
///
/// Threads keep counting during the read. Each number is exact, but two numbers may be of slightly different times.
///
/// # Examples
///
/// ```
/// # use shotclock::Watchdog;
/// # let watchdog = Watchdog::builder().build()?;
/// let parse = watchdog.watch("parse");
/// drop(parse.enter());
///
/// let stats = parse.stats();
/// assert_eq!(stats.polls, 1);
/// assert_eq!(stats.in_flight, 0);
/// assert!(stats.quantile(0.99) <= Some(stats.longest));
/// # Ok::<(), shotclock::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WatchStats {
    /// The name of the watch.
    pub watch: Arc<str>,
    /// Polls that have ended, with those that panicked, and slow destructors.
    pub polls: u64,
    /// Polls over their budget, without the time of slow polls inside them: see [`SlowPoll`](crate::SlowPoll).
    pub slow_polls: u64,
    /// Polls that ended by a panic.
    pub panicked_polls: u64,
    /// Polls before which the worker handed its other tasks over ([`Watch::contained`](crate::Watch::contained)).
    pub contained_polls: u64,
    /// Polls that run now.
    pub in_flight: u64,
    /// Running polls that are over their budget.
    pub stalls: u64,
    /// The age of the oldest running poll.
    pub oldest_in_flight: Option<Duration>,
    /// Time in polls and destructors, without that of watched polls inside them. The sum over all watches is the time
    /// of the program's watched code.
    pub busy: Duration,
    /// The longest poll. `Duration::ZERO` if there was none.
    pub longest: Duration,
    distribution: Distribution,
}

impl WatchStats {
    pub(super) fn new(counters: &WatchCounters, in_flight: &[PollStatus]) -> Self {
        let Totals {
            distribution,
            busy,
            longest,
            panicked,
            slow,
            contained,
            ..
        } = counters.totals();
        let mine = in_flight.iter().filter(|poll| poll.watch == counters.id);
        let ages = mine.clone().map(|poll| poll.elapsed_nanos);
        Self {
            watch: Arc::clone(&counters.name),
            polls: distribution.count(),
            slow_polls: slow,
            panicked_polls: panicked,
            contained_polls: contained,
            in_flight: mine.clone().count() as u64,
            stalls: mine.filter(|poll| poll.stalled_nanos.is_some()).count() as u64,
            oldest_in_flight: ages.max().map(Duration::from_nanos),
            busy: Duration::from_nanos(busy),
            longest: Duration::from_nanos(longest),
            distribution,
        }
    }

    /// Returns the histogram: the upper bound of each cell that is not empty, and the number of polls in it.
    ///
    /// The bounds are between 100 ns and 100 s, ten to a decade. The last cell has no bound.
    pub fn histogram(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let cells = self.distribution.cells;
        let bound = |cell| BOUNDS_NANOS.get(cell).copied().map(Duration::from_nanos);
        let cells = (0..).map(bound).zip(cells);
        cells.filter(|(_, count)| *count > 0)
    }

    /// Estimates the duration that a share `q` of all polls did not exceed: `quantile(0.99)` is the 99th percentile.
    ///
    /// Returns `None` if there was no poll, or if `q` is not a number. A `q` below 0 counts as 0, and above 1 as 1.
    ///
    /// The estimate is interpolated between the bounds of a cell. Between 100 ns and 100 s, these differ by a factor of
    /// at most 1.28, and so does the estimate from the truth.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let longest = nanos_of(self.longest);
        self.distribution.quantile(q, longest)
    }
}

/// Holds the statistics of all watches of a watchdog.
///
/// `Display` prints an aligned table, in descending order of slow polls, then of busy time, then by name.
///
/// # Examples
///
/// ```
/// # use shotclock::Watchdog;
/// # let watchdog = Watchdog::builder().build()?;
/// drop(watchdog.watch("parse").enter());
/// let snapshot = watchdog.snapshot();
/// println!("{snapshot}");
/// assert_eq!(snapshot.get("parse").map(|stats| stats.polls), Some(1));
/// # Ok::<(), shotclock::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Snapshot {
    watches: Vec<WatchStats>,
}

impl Snapshot {
    pub(crate) fn new(counters: &[Arc<WatchCounters>], clock: &Clock) -> Self {
        let in_flight = poll_statuses(clock);
        let stats = |counters: &Arc<WatchCounters>| WatchStats::new(counters, &in_flight);
        let mut watches: Vec<_> = counters.iter().map(stats).collect();
        watches.sort_unstable_by(|a, b| {
            let weight = |stats: &WatchStats| (stats.slow_polls, stats.busy);
            weight(b)
                .cmp(&weight(a))
                .then_with(|| a.watch.cmp(&b.watch))
        });
        Self { watches }
    }

    /// Returns the watches in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = &WatchStats> {
        self.watches.iter()
    }

    /// Returns the statistics of the watch with that name.
    pub fn get(&self, name: &str) -> Option<&WatchStats> {
        self.watches.iter().find(|stats| &*stats.watch == name)
    }
}

const HEADINGS: [&str; 9] = [
    "watch",
    "polls",
    "slow",
    "panicked",
    "in flight",
    "busy",
    "p50",
    "p99",
    "longest",
];

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        text_table::write(f, HEADINGS, self.watches.iter().map(row))
    }
}

fn row(stats: &WatchStats) -> [String; HEADINGS.len()] {
    let time = |duration: Option<Duration>| duration.map_or("-".into(), |d| format!("{d:.1?}"));
    [
        // A line break in a name would break the table.
        stats.watch.escape_debug().to_string(),
        stats.polls.to_string(),
        stats.slow_polls.to_string(),
        stats.panicked_polls.to_string(),
        stats.in_flight.to_string(),
        time((stats.busy > Duration::ZERO).then_some(stats.busy)),
        time(stats.quantile(0.5)),
        time(stats.quantile(0.99)),
        time((stats.polls > 0).then_some(stats.longest)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::Counted;

    #[test]
    fn display_of_a_snapshot_is_an_aligned_table_with_slow_watches_first() {
        let (clock, _) = Clock::mock();
        let counters =
            ["quiet", "line\nbreak", "worst"].map(|name| Arc::new(WatchCounters::new(name.into())));
        for (index, elapsed, slow) in [(1, 4_000, false), (2, 25_000_000, true)] {
            let poll = Counted {
                elapsed,
                self_time: elapsed,
                is_poll: true,
                slow,
                panicked: false,
            };
            counters[index].count_rarely(None, poll);
        }
        let snapshot = Snapshot::new(&counters, &clock);
        let slow_polls = |name| snapshot.get(name).map(|stats| stats.slow_polls);
        assert_eq!(
            (slow_polls("worst"), slow_polls("quiet")),
            (Some(1), Some(0))
        );
        assert_eq!(slow_polls("another"), None);
        assert_eq!(
            snapshot.to_string(),
            "\
watch        polls  slow  panicked  in flight    busy     p50     p99  longest
worst            1     1         0          0  25.0ms  22.5ms  25.0ms   25.0ms
line\\nbreak      1     0         0          0   4.0µs   3.6µs   4.0µs    4.0µs
quiet            0     0         0          0       -       -       -        -"
        );
    }

    #[test]
    fn histogram_has_the_cells_that_are_not_empty() {
        let counters = Arc::new(WatchCounters::new("histogram".into()));
        for elapsed in [4_000, 4_000, 25_000_000, 300_000_000_000] {
            let poll = Counted {
                elapsed,
                is_poll: true,
                ..Counted::default()
            };
            counters.count_rarely(None, poll);
        }
        let stats = WatchStats::new(&counters, &[]);
        let (bounds, counts): (Vec<_>, Vec<_>) = stats.histogram().unzip();
        assert_eq!(counts, [2, 1, 1]);
        let least = [Duration::from_micros(4), Duration::from_millis(25)];
        for (bound, least) in bounds.iter().zip(least) {
            assert!(bound.is_some_and(|bound| bound >= least && bound < least * 13 / 10));
        }
        assert_eq!(bounds[2], None);
    }

    #[cfg(feature = "serde")]
    #[test]
    fn watch_stats_json_has_every_public_field() {
        let (clock, _) = Clock::mock();
        let flights = poll_statuses(&clock);
        let stats = WatchStats::new(&WatchCounters::new("w".into()), &flights);
        crate::serialize::assert_json_has_public_fields!(stats, WatchStats {
            watch, polls, slow_polls, panicked_polls, contained_polls, in_flight, stalls, oldest_in_flight, busy,
            longest,
        } private { distribution });
    }
}

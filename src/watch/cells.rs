//! The counters of one watch: a set of cells for each thread, which only that thread writes.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, OnceLock};

use super::expected_overrun::ExpectedOverrun;
use super::ids;
use super::sampled::Sampled;
use crate::append_table::AppendTable;
use crate::histogram::{CELLS, Distribution, cell_of};
use crate::pending_durations::{SLOW_POLL_DURATION, Series};
use crate::rate_limit::Limiter;
use crate::report::Cause;
use crate::slot::Slot;
use crate::sync::{AtomicU64, Lock, add_single_writer};

/// The statistics behind all handles of one watch.
pub(crate) struct WatchCounters {
    pub(crate) id: u64,
    pub(crate) name: Arc<str>,
    pub(crate) reports: Limiter,
    #[cfg_attr(not(feature = "metrics"), expect(dead_code))]
    pub(crate) slow_durations: Arc<Series>,
    pub(crate) causes: Causes,
    pub(crate) expected_overrun: ExpectedOverrun,
    by_slot: AppendTable<Box<Cells>>,
    /// For polls on a thread that has returned its slot. These are rare, so they share a lock.
    slotless: Lock<Cells>,
}

/// The slow polls by cause. All threads share it, because a slow poll has time for contention.
///
/// A count never decreases. A poll whose cause is not decided yet has no cause here. So the sum over the causes is at
/// most the number of slow polls.
#[derive(Debug, Default)]
pub(crate) struct Causes {
    computing: AtomicU64,
    blocked: AtomicU64,
    starved: AtomicU64,
    suspended: AtomicU64,
    unknown: AtomicU64,
}

impl Causes {
    pub(crate) fn count(&self, cause: &Cause) {
        let cell = match cause {
            Cause::Computing => &self.computing,
            Cause::Blocked(_) => &self.blocked,
            Cause::Starved => &self.starved,
            Cause::Suspended => &self.suspended,
            Cause::Unknown => &self.unknown,
        };
        // The poll was counted as slow before. A thread that reads this count also reads that one.
        cell.fetch_add(1, Release);
    }

    fn read(&self) -> [u64; CAUSES.len()] {
        [
            &self.computing,
            &self.blocked,
            &self.starved,
            &self.suspended,
            &self.unknown,
        ]
        .map(|cell| cell.load(Acquire))
    }
}

/// The labels of the metrics, in the order of [`Causes`].
const CAUSES: [&str; 5] = ["computing", "blocked", "starved", "suspended", "unknown"];

/// A slow poll whose cause is not decided yet. It is counted once, whatever happens.
///
/// Dropped without a cause, it counts as unknown: the diagnosis panicked, or the poll ran on a reporter's thread.
pub(crate) struct Undecided {
    counters: Arc<WatchCounters>,
    cause: Cause,
}

impl Undecided {
    pub(crate) fn new(counters: &Arc<WatchCounters>) -> Self {
        Self {
            counters: Arc::clone(counters),
            cause: Cause::Unknown,
        }
    }

    pub(crate) fn decide(mut self, cause: &Cause) {
        self.cause = *cause;
    }
}

impl Drop for Undecided {
    fn drop(&mut self) {
        self.counters.causes.count(&self.cause);
    }
}

/// The counters of one thread for one watch. Times in nanoseconds.
pub(crate) struct Cells {
    histogram: [AtomicU64; CELLS],
    total: AtomicU64,
    busy: AtomicU64,
    longest: AtomicU64,
    panicked: AtomicU64,
    slow: AtomicU64,
    /// For polls that are counted and not timed.
    sampled: OnceLock<Box<Sampled>>,
}

/// One measured section of code, to count. Times in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    pub(crate) elapsed: u64,
    pub(crate) self_time: u64,
    /// Whether it counts as a poll, or only as busy time.
    pub(crate) is_poll: bool,
    pub(crate) slow: bool,
    pub(crate) panicked: bool,
}

/// The sums over all threads. Times in nanoseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) distribution: Distribution,
    pub(crate) total: u64,
    pub(crate) busy: u64,
    pub(crate) longest: u64,
    pub(crate) panicked: u64,
    pub(crate) slow: u64,
    pub(crate) contained: u64,
    /// In the order of [`CAUSES`].
    causes: [u64; CAUSES.len()],
}

impl WatchCounters {
    pub(crate) fn new(name: Arc<str>) -> Self {
        Self {
            id: ids::allocate(&name),
            reports: Limiter::default(),
            slow_durations: Series::new(SLOW_POLL_DURATION, "watch", Arc::clone(&name)),
            name,
            causes: Causes::default(),
            expected_overrun: ExpectedOverrun::default(),
            by_slot: AppendTable::new(),
            slotless: Lock::new(Cells::new()),
        }
    }

    /// Returns the cells that the slot's owner writes. `None` before its first poll of this watch.
    #[inline]
    pub(crate) fn cells(&self, slot: &Slot) -> Option<&Cells> {
        self.by_slot.get(slot.index()).map(|cells| &**cells)
    }

    /// Counts a poll for which [`cells`](Self::cells) returned none: the first one in this slot, or one on a thread
    /// without a slot.
    #[cold]
    #[inline(never)]
    pub(crate) fn count_rarely(&self, slot: Option<&Slot>, poll: Counted) {
        let new = || Box::new(Cells::new());
        match slot.and_then(|slot| self.by_slot.get_or_init(slot.index(), new)) {
            Some(cells) => cells.count(poll),
            None => {
                self.slotless.lock().count(poll);
            }
        }
    }

    pub(crate) fn totals(&self) -> Totals {
        // The causes are read first, so a poll that is read under its cause is also read as slow.
        let mut totals = Totals {
            causes: self.causes.read(),
            ..Totals::default()
        };
        for cells in self.by_slot.iter() {
            cells.add_to(&mut totals);
        }
        let slotless = self.slotless.lock();
        slotless.add_to(&mut totals);
        totals.contained = self.expected_overrun.contained();
        totals
    }
}

impl Totals {
    /// Returns the slow polls by the label of their cause, without those whose cause is not decided yet.
    #[cfg_attr(not(feature = "metrics"), expect(dead_code))]
    pub(crate) fn slow_by_cause(&self) -> [(&'static str, u64); CAUSES.len()] {
        std::array::from_fn(|index| (CAUSES[index], self.causes[index]))
    }
}

impl Default for Cells {
    fn default() -> Self {
        Self::new()
    }
}

impl Cells {
    fn new() -> Self {
        Self {
            histogram: std::array::from_fn(|_| AtomicU64::new(0)),
            total: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            longest: AtomicU64::new(0),
            panicked: AtomicU64::new(0),
            slow: AtomicU64::new(0),
            sampled: OnceLock::new(),
        }
    }

    /// Returns the counters of polls that are not timed. `None` before the first sample.
    #[inline]
    pub(crate) fn sampled(&self) -> Option<&Sampled> {
        self.sampled.get().map(|sampled| &**sampled)
    }

    /// Records a sample: a timed poll that stands for some of the next ones.
    pub(crate) fn sample(&self, slot: &Slot, elapsed: u64, self_time: u64) {
        let new = || Box::new(Sampled::new(slot.index() as u64));
        self.sampled.get_or_init(new).renew(elapsed, self_time);
    }

    #[inline]
    pub(crate) fn count(&self, poll: Counted) {
        add_single_writer(&self.busy, poll.self_time);
        if poll.is_poll {
            add_single_writer(&self.histogram[cell_of(poll.elapsed)], 1);
            add_single_writer(&self.total, poll.elapsed);
            if poll.elapsed > self.longest.load(Relaxed) {
                self.longest.store(poll.elapsed, Relaxed);
            }
        }
        if poll.slow | poll.panicked {
            add_single_writer(&self.slow, u64::from(poll.slow));
            add_single_writer(&self.panicked, u64::from(poll.panicked));
        }
    }

    fn add_to(&self, totals: &mut Totals) {
        let cells = totals.distribution.cells.iter_mut();
        for (sum, cell) in cells.zip(&self.histogram) {
            *sum += cell.load(Relaxed);
        }
        totals.add_time(self.total.load(Relaxed), self.busy.load(Relaxed));
        totals.longest = totals.longest.max(self.longest.load(Relaxed));
        totals.panicked += self.panicked.load(Relaxed);
        totals.slow += self.slow.load(Relaxed);
        if let Some(sampled) = self.sampled.get() {
            sampled.add_to(totals);
        }
    }
}

impl Totals {
    /// Adds nanoseconds. The sums wrap around as the cells do: after 584 years, or under a clock that jumps.
    pub(crate) fn add_time(&mut self, total: u64, busy: u64) {
        self.total = self.total.wrapping_add(total);
        self.busy = self.busy.wrapping_add(busy);
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn add(&mut self, other: &Self) {
        self.distribution.add(&other.distribution);
        self.add_time(other.total, other.busy);
        self.longest = self.longest.max(other.longest);
        self.panicked += other.panicked;
        self.slow += other.slow;
        self.contained += other.contained;
        for (sum, count) in self.causes.iter_mut().zip(other.causes) {
            *sum += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_rarely_without_a_slot_counts() {
        let counters = WatchCounters::new("slotless".into());
        let poll = |elapsed, self_time| Counted {
            elapsed,
            self_time,
            is_poll: true,
            ..Counted::default()
        };
        counters.count_rarely(None, poll(500, 500));
        counters.count_rarely(crate::slot::current(), poll(700, 200));
        let totals = counters.totals();
        assert_eq!(totals.distribution.count(), 2);
        assert_eq!(
            (totals.total, totals.busy, totals.longest),
            (1_200, 700, 700)
        );
    }

    #[test]
    fn cells_have_the_documented_size() {
        assert_eq!((size_of::<Cells>(), size_of::<Sampled>()), (792, 1_104));
    }

    #[test]
    fn undecided_poll_counts_under_one_cause_once_decided() {
        let counters = Arc::new(WatchCounters::new("causes".into()));
        let causes = [
            Cause::Computing,
            Cause::Blocked(Default::default()),
            Cause::Starved,
            Cause::Suspended,
            Cause::Unknown,
        ];
        let slow = Counted {
            slow: true,
            ..Counted::default()
        };
        let mut undecided = Vec::new();
        for (index, cause) in causes.iter().enumerate() {
            for _ in 0..=index {
                counters.count_rarely(None, slow);
                undecided.push((Undecided::new(&counters), cause));
            }
        }
        let counts = || counters.totals().slow_by_cause().map(|(_, count)| count);
        assert_eq!((counters.totals().slow, counts()), (15, [0; 5]));
        for (undecided, cause) in undecided {
            undecided.decide(cause);
        }
        let by_cause = [
            ("computing", 1),
            ("blocked", 2),
            ("starved", 3),
            ("suspended", 4),
            ("unknown", 5),
        ];
        assert_eq!(counters.totals().slow_by_cause(), by_cause);
        drop(Undecided::new(&counters));
        assert_eq!(counts(), [1, 2, 3, 4, 6]);
    }

    #[test]
    fn add_of_two_totals_sums_each_field() {
        let mut sum = Totals::default();
        for times in [1, 10] {
            let mut totals = Totals {
                total: times,
                busy: 2 * times,
                longest: 3 * times,
                panicked: 4 * times,
                slow: 30 * times,
                contained: 6 * times,
                causes: [7, 8, 9, 1, 5].map(|count| count * times),
                ..Totals::default()
            };
            totals.distribution.cells[5] = times;
            sum.add(&totals);
        }
        assert_eq!((sum.total, sum.busy, sum.longest), (11, 22, 30));
        assert_eq!((sum.panicked, sum.slow, sum.contained), (44, 330, 66));
        assert_eq!(sum.distribution.count(), 11);
        let counts = sum.slow_by_cause().map(|(_, count)| count);
        assert_eq!(counts, [77, 88, 99, 11, 55]);
    }
}

//! Floor 5: the hot path, from the entry of a poll to its return.
//!
//! Two readings of the clock (or none, and one poll in 64 with two: [`by_ticks`](crate::ticked_poll)), plain
//! stores into the thread's charged slot and cells, one comparison. No allocation, no lock, no
//! read-modify-write that is shared with another thread; whatever else there is to do about a poll is
//! done in [`conclude`], which a fast poll never enters.

use std::num::NonZeroU64;
use std::panic::Location;

use crate::flight_record::{self, Entry};
use crate::overrun::Overrun;
use crate::slot::{self, FrameToken, Kind, PollStart, PollTimes, SENTINEL_PARKER, Slot};
use crate::sys;
use crate::ticked_poll::{self, FastPoll};
use crate::watch::{Counted, Sampled, Watch};

/// What is timed, and the least number of nanoseconds that can be slow there, whatever the budget.
///
/// A destructor must not be slow for next to nothing: who sets a budget near zero, as tests do, wants
/// every poll to be slow and not every future twice.
#[derive(Clone, Copy)]
pub(crate) struct Section {
    kind: Kind,
    at_least: u64,
}

impl Section {
    pub(crate) const POLL: Self = Self::new(Kind::Poll, 0);
    pub(crate) const CONTAINED: Self = Self::new(Kind::Contained, 0);
    pub(crate) const ENTERED: Self = Self::new(Kind::Entered, 0);
    /// The destructor of what was not polled to its end: what the future owns is dropped in it.
    pub(crate) const DROP: Self = Self::new(Kind::Drop, 10_000);
    /// The destructor of a future that is done. It dropped what it owns when it returned, so this
    /// one is nearly always empty: if it takes long, its thread was most likely not run.
    pub(crate) const DROP_DONE: Self = Self::new(Kind::Drop, 10_000_000);

    const fn new(kind: Kind, at_least: u64) -> Self {
        Self { kind, at_least }
    }

    #[inline]
    fn budget(self, watch: &Watch) -> u64 {
        watch.budget_nanos().max(self.at_least)
    }
}

/// One section of code in flight: it has the thread until it ends.
///
/// Dropping it, instead of [`end`](Self::end), is how a panic ends it.
pub(crate) struct PollTimer<'w> {
    open: Started<'w>,
}

/// What is known from the beginning. Copied, so that it stays in registers across the inner poll.
#[derive(Clone, Copy)]
struct Started<'w> {
    watch: &'w Watch,
    location: &'static Location<'static>,
    section: Section,
    slot: Option<(&'static Slot, FrameToken)>,
    /// A reading of the clock, or a tick.
    start: u64,
    /// Where it is counted if it is over before the next tick.
    sampled: Option<&'w Sampled>,
}

impl<'w> PollTimer<'w> {
    /// Inlined in every build, as everything between is, so that the stack pointer is that of the
    /// function that polls, or that entered: what it calls is below, and what called it above.
    #[inline(always)]
    pub(crate) fn begin(
        watch: &'w Watch,
        location: &'static Location<'static>,
        section: Section,
    ) -> Self {
        Self::begin_at(watch, location, section, sys::stack_pointer())
    }

    /// Where the stack is that of another function than the caller's; 0 if it is not known.
    #[inline(always)]
    pub(crate) fn begin_at(
        watch: &'w Watch,
        location: &'static Location<'static>,
        section: Section,
        stack: usize,
    ) -> Self {
        let slot = slot::current();
        let fast = match section.kind {
            Kind::Poll => FastPoll::begin(watch, slot),
            _ => None,
        };
        let (start, sampled) = match fast {
            Some(FastPoll { tick, sampled }) => (tick, Some(sampled)),
            None => (watch.clock().raw(), None),
        };
        let slot = slot.map(|slot| {
            let mark = slot.begin(PollStart {
                watch: watch.counters().id,
                kind: section.kind,
                start,
                by_ticks: sampled.is_some(),
                budget: section.budget(watch),
                location,
                stack,
            });
            SENTINEL_PARKER.notify();
            (slot, mark)
        });
        let open = Started {
            watch,
            location,
            section,
            slot,
            start,
            sampled,
        };
        Self { open }
    }

    /// Lets go of the watch, which is kept by whoever ends it.
    #[cfg(tokio_unstable)]
    pub(crate) fn loose(self) -> DetachedTimer {
        let Started {
            location,
            section,
            slot,
            start,
            sampled,
            ..
        } = self.open;
        let by_ticks = sampled.is_some();
        std::mem::forget(self);
        DetachedTimer {
            location,
            section,
            slot,
            start,
            by_ticks,
        }
    }

    #[inline]
    pub(crate) fn end(self) {
        let open = self.open;
        std::mem::forget(self);
        open.close(false);
    }
}

/// A section in flight that does not know its watch.
#[cfg(tokio_unstable)]
pub(crate) struct DetachedTimer {
    location: &'static Location<'static>,
    section: Section,
    slot: Option<(&'static Slot, FrameToken)>,
    start: u64,
    by_ticks: bool,
}

#[cfg(tokio_unstable)]
impl DetachedTimer {
    /// With the watch that it was begun with.
    pub(crate) fn end(self, watch: &Watch) {
        let Self {
            location,
            section,
            slot,
            start,
            by_ticks,
        } = self;
        let counted_there = slot.filter(|_| by_ticks);
        let open = Started {
            watch,
            location,
            section,
            slot,
            start,
            sampled: counted_there.and_then(|(slot, _)| ticked_poll::sampled(watch, slot)),
        };
        open.close(false);
    }
}

impl Drop for PollTimer<'_> {
    #[cold]
    fn drop(&mut self) {
        self.open.close(true);
    }
}

impl Started<'_> {
    #[inline]
    fn close(mut self, panicked: bool) {
        if let (Some((slot, mark)), Some(sampled)) = (self.slot, self.sampled) {
            if panicked || !ticked_poll::end(slot, mark, self.start, sampled) {
                self.close_late((slot, mark), sampled, panicked);
            }
            return;
        }
        if self.section.kind == Kind::Entered {
            // A guard may have been kept beyond its thread's slot.
            self.slot = self.slot.filter(|(slot, _)| slot::is_current(slot));
        }
        let clock = self.watch.clock();
        let elapsed = clock.nanos_between(self.start, clock.raw());
        let self_time = self.account(elapsed, 0, panicked);
        if self.section.kind == Kind::Poll && self.watch.is_by_ticks() {
            if let Some((slot, _)) = self.slot {
                ticked_poll::sample(self.watch, slot, self.start, elapsed, self_time);
            }
        }
    }

    /// The same of a poll that went by ticks, and of which there may be something to tell.
    #[cold]
    #[inline(never)]
    fn close_late(mut self, place: (&Slot, FrameToken), sampled: &Sampled, panicked: bool) {
        let late = ticked_poll::end_late(self.watch, place, self.start, sampled, panicked);
        if let Some(late) = late {
            self.start = late.start;
            self.account(late.elapsed, late.slack, panicked);
        }
    }

    /// Counts what has ended, and sees to whatever else there is to do about it. It took `elapsed`
    /// nanoseconds, or up to `slack` more. Says how many of them were its charged.
    #[inline]
    fn account(&self, elapsed: u64, slack: u64, panicked: bool) -> u64 {
        let PollTimes {
            self_time,
            charged,
            is_slow: slow,
            charged_inside,
        } = self.poll_times(elapsed);
        // A destructor is no poll, so it is in no histogram, unless it was slow (or panicked) and
        // counts as one: slow polls are always among the polls.
        let is_poll = self.section.kind != Kind::Drop || slow || panicked;
        // Made where it is used, twice: what a rare path needs in memory stays in registers here.
        let counted = || Counted {
            elapsed: elapsed + slack / 2,
            self_time: self_time + slack / 2,
            is_poll,
            slow,
            panicked,
        };
        let counters = self.watch.counters();
        let slot = self.slot.map(|(slot, _)| slot);
        match slot.and_then(|slot| counters.cells(slot)) {
            Some(cells) => cells.count(counted()),
            None => counters.count_rarely(slot, counted()),
        }
        // A poll that was told of while it ran may turn out to be the fault of one inside it; and one
        // past half of its budget is remembered, which is the case for every slow one.
        let budget = self.section.budget(self.watch);
        if (elapsed > budget / 2) | charged_inside {
            let (location, kind) = (self.location, self.section.kind);
            let times = [self.start, elapsed, charged, budget];
            conclude(
                self.watch,
                location,
                kind,
                self.slot,
                times,
                slow | charged_inside,
                slow,
            );
        }
        self_time
    }

    #[inline]
    fn poll_times(&self, elapsed: u64) -> PollTimes {
        let budget = self.section.budget(self.watch);
        match self.slot {
            Some((slot, mark)) => {
                slot.end(mark, elapsed, budget, self.section.kind != Kind::Entered)
            }
            None => PollTimes {
                self_time: elapsed,
                charged: elapsed,
                is_slow: elapsed > budget,
                charged_inside: false,
            },
        }
    }
}

/// Its arguments are taken apart, so that only this path has them in memory.
#[cold]
#[inline(never)]
fn conclude(
    watch: &Watch,
    location: &'static Location<'static>,
    kind: Kind,
    slot: Option<(&'static Slot, FrameToken)>,
    [start, elapsed, charged, budget]: [u64; 4],
    is_to_be_told: bool,
    slow: bool,
) {
    if let (true, Some((slot, mark))) = (watch.clock().is_real(), slot) {
        flight_record::record(Entry {
            watch: watch.counters().id,
            kind,
            slot: slot.index(),
            seq: mark.seq().and_then(NonZeroU64::new),
            start,
            elapsed_nanos: elapsed,
            budget_nanos: budget,
        });
    }
    if !is_to_be_told {
        return;
    }
    let overrun = Overrun {
        watch,
        location,
        kind,
        slot,
        start,
        elapsed,
        charged,
        budget,
        slow,
    };
    overrun.report();
}

#[cfg(all(test, not(shotclock_loom)))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tests::{MS, Scene};

    #[test]
    fn what_a_poll_may_have_taken_more_is_counted_by_half_and_blames_nobody() {
        let scene = Scene::new();
        let watch = scene.watch("w");
        let budget = watch.budget_nanos();
        let possession = PollTimer::begin(&watch, Location::caller(), Section::POLL);
        let open = possession.open;
        std::mem::forget(possession);
        assert_eq!(open.account(budget, 4_000_000, false), budget);
        let stats = watch.stats();
        assert_eq!((stats.polls, stats.slow_polls), (1, 0));
        assert_eq!((stats.longest, stats.busy), (12 * MS, 12 * MS));
    }

    #[test]
    fn past_half_of_its_budget_a_poll_is_remembered() {
        let remembered = |budget: Duration, takes: Duration| {
            let builder = crate::Watchdog::builder().without_tracing().budget(budget);
            let watch = builder.build().unwrap().watch("w");
            let possession = PollTimer::begin(&watch, Location::caller(), Section::POLL);
            std::thread::sleep(takes);
            possession.end();
            let id = watch.counters().id;
            flight_record::read().iter().any(|poll| poll.watch == id)
        };
        assert!(!remembered(Duration::from_secs(86_400), MS));
        assert!(remembered(20 * MS, 15 * MS));
    }
}

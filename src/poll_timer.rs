//! Floor 5: the hot path, from the begin of a poll to its end.
//!
//! It makes two clock readings, plain stores into the thread's own slot and cells, and one comparison. A ticked poll
//! makes no clock reading, but for one poll in 64 ([`ticked_poll`]). It makes no allocation, takes no lock, and shares
//! no read-modify-write with another thread. Everything else about a poll happens in [`conclude`], which a fast poll
//! never enters.

use std::num::NonZeroU64;
use std::panic::Location;

use crate::flight_record::{self, RecordedPoll};
use crate::overrun::EndedPoll;
use crate::report::SectionKind;
use crate::slot::{self, FrameToken, PollStart, PollTimes, SENTINEL_PARKER, Slot};
use crate::sys;
use crate::ticked_poll::{self, TickedPoll};
use crate::watch::{Counted, Sampled, Watch};

/// A kind of timed code, and the least budget of that kind.
///
/// With a budget near zero, as in tests, each poll should be slow, but not each future a second time for its
/// destructor. So destructors have a least budget.
#[derive(Clone, Copy)]
pub(crate) struct Section {
    kind: SectionKind,
    min_budget_nanos: u64,
}

impl Section {
    pub(crate) const POLL: Self = Self::new(SectionKind::Poll, 0);
    pub(crate) const CONTAINED: Self = Self::new(SectionKind::Contained, 0);
    pub(crate) const ENTERED: Self = Self::new(SectionKind::Entered, 0);
    /// The destructor of an unfinished future, which drops all that the future owns.
    pub(crate) const DROP: Self = Self::new(SectionKind::Drop, 10_000);
    /// The destructor of a finished future. The future dropped all that it owns when it returned, so its destructor is
    /// nearly always empty. If it takes long, its thread was most likely not scheduled.
    pub(crate) const DROP_DONE: Self = Self::new(SectionKind::Drop, 10_000_000);

    const fn new(kind: SectionKind, min_budget_nanos: u64) -> Self {
        Self {
            kind,
            min_budget_nanos,
        }
    }

    #[inline]
    fn budget(self, watch: &Watch) -> u64 {
        watch.budget_nanos().max(self.min_budget_nanos)
    }
}

/// Times one section of code.
///
/// A panic drops the timer instead of calling [`end`](Self::end).
pub(crate) struct PollTimer<'w> {
    open: Started<'w>,
}

/// The state from the begin of a section. `Copy`, so that it stays in registers across the inner poll.
#[derive(Clone, Copy)]
struct Started<'w> {
    watch: &'w Watch,
    location: &'static Location<'static>,
    section: Section,
    slot: Option<(&'static Slot, FrameToken)>,
    /// A reading of the clock, or a tick.
    start: u64,
    /// The counter of a ticked poll that ends before the next tick.
    sampled: Option<&'w Sampled>,
}

impl<'w> PollTimer<'w> {
    /// Begins a section.
    ///
    /// Inlined in every build, together with its callers, so that the stack pointer is that of the function that polls
    /// or enters.
    #[inline(always)]
    pub(crate) fn begin(
        watch: &'w Watch,
        location: &'static Location<'static>,
        section: Section,
    ) -> Self {
        Self::begin_at(watch, location, section, sys::stack_pointer())
    }

    /// Begins a section with the stack pointer of another function than the caller; 0 if it is unknown.
    #[inline(always)]
    pub(crate) fn begin_at(
        watch: &'w Watch,
        location: &'static Location<'static>,
        section: Section,
        stack: usize,
    ) -> Self {
        let slot = slot::current();
        let ticked = match section.kind {
            SectionKind::Poll => TickedPoll::begin(watch, slot),
            _ => None,
        };
        let (start, sampled) = match ticked {
            Some(TickedPoll { tick, sampled }) => (tick, Some(sampled)),
            None => (watch.clock().raw(), None),
        };
        let slot = slot.map(|slot| {
            let token = slot.begin(PollStart {
                watch: watch.counters().id,
                kind: section.kind,
                start,
                is_ticked: sampled.is_some(),
                budget: section.budget(watch),
                location,
                stack,
            });
            SENTINEL_PARKER.notify();
            (slot, token)
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

    /// Detaches the timer from its watch. The caller keeps the watch for the end.
    #[cfg(tokio_unstable)]
    pub(crate) fn detach(self) -> DetachedTimer {
        let Started {
            location,
            section,
            slot,
            start,
            sampled,
            ..
        } = self.open;
        let is_ticked = sampled.is_some();
        std::mem::forget(self);
        DetachedTimer {
            location,
            section,
            slot,
            start,
            is_ticked,
        }
    }

    #[inline]
    pub(crate) fn end(self) {
        let open = self.open;
        std::mem::forget(self);
        open.close(false);
    }
}

/// A timer without its watch.
#[cfg(tokio_unstable)]
pub(crate) struct DetachedTimer {
    location: &'static Location<'static>,
    section: Section,
    slot: Option<(&'static Slot, FrameToken)>,
    start: u64,
    is_ticked: bool,
}

#[cfg(tokio_unstable)]
impl DetachedTimer {
    /// Ends the section, with the watch that it began with.
    pub(crate) fn end(self, watch: &Watch) {
        let Self {
            location,
            section,
            slot,
            start,
            is_ticked,
        } = self;
        let ticked_slot = slot.filter(|_| is_ticked);
        let open = Started {
            watch,
            location,
            section,
            slot,
            start,
            sampled: ticked_slot.and_then(|(slot, _)| ticked_poll::sampled(watch, slot)),
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
        if let (Some((slot, token)), Some(sampled)) = (self.slot, self.sampled) {
            if panicked || !ticked_poll::end(slot, token, self.start, sampled) {
                self.close_late((slot, token), sampled, panicked);
            }
            return;
        }
        if self.section.kind == SectionKind::Entered {
            // A guard may outlive the lease of its thread's slot.
            self.slot = self.slot.filter(|(slot, _)| slot::is_current(slot));
        }
        let clock = self.watch.clock();
        let elapsed = clock.nanos_between(self.start, clock.raw());
        let self_time = self.account(elapsed, 0, panicked);
        if self.section.kind == SectionKind::Poll
            && self.watch.is_ticked()
            && let Some((slot, _)) = self.slot
        {
            ticked_poll::sample(self.watch, slot, self.start, elapsed, self_time);
        }
    }

    /// Closes a ticked poll that may be slow.
    #[cold]
    #[inline(never)]
    fn close_late(mut self, slot: (&Slot, FrameToken), sampled: &Sampled, panicked: bool) {
        let late = ticked_poll::end_late(self.watch, slot, self.start, sampled, panicked);
        if let Some(late) = late {
            self.start = late.start;
            self.account(late.elapsed, late.slack, panicked);
        }
    }

    /// Counts an ended section that took between `elapsed` and `elapsed + slack` nanoseconds. Returns its self time.
    #[inline]
    fn account(&self, elapsed: u64, slack: u64, panicked: bool) -> u64 {
        let PollTimes {
            self_time,
            charged,
            is_slow: slow,
            has_slow_inside,
        } = self.poll_times(elapsed);
        // The histogram leaves out destructors, but for slow ones and those that panicked: these count as polls, so that
        // the slow polls are always among the polls.
        let is_poll = self.section.kind != SectionKind::Drop || slow || panicked;
        // A closure, so that the frequent path keeps these values in registers, and only the rare path stores them.
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
        // The flight record keeps polls past half of their budget, which include all slow ones. A poll with slow polls
        // inside may have been reported while it ran.
        let budget = self.section.budget(self.watch);
        if (elapsed > budget / 2) | has_slow_inside {
            let (location, kind) = (self.location, self.section.kind);
            let times = [self.start, elapsed, charged, budget];
            conclude(
                self.watch,
                location,
                kind,
                self.slot,
                times,
                slow | has_slow_inside,
                slow,
            );
        }
        self_time
    }

    #[inline]
    fn poll_times(&self, elapsed: u64) -> PollTimes {
        let budget = self.section.budget(self.watch);
        match self.slot {
            Some((slot, token)) => slot.end(
                token,
                elapsed,
                budget,
                self.section.kind != SectionKind::Entered,
            ),
            None => PollTimes {
                self_time: elapsed,
                charged: elapsed,
                is_slow: elapsed > budget,
                has_slow_inside: false,
            },
        }
    }
}

/// Records a poll past half of its budget, and reports a slow one.
///
/// Takes single values, so that only this path stores them in memory.
#[cold]
#[inline(never)]
fn conclude(
    watch: &Watch,
    location: &'static Location<'static>,
    kind: SectionKind,
    slot: Option<(&'static Slot, FrameToken)>,
    [start, elapsed, charged, budget]: [u64; 4],
    may_be_reported: bool,
    slow: bool,
) {
    if let (true, Some((slot, token))) = (watch.clock().is_real(), slot) {
        flight_record::record(RecordedPoll {
            watch: watch.counters().id,
            kind,
            slot: slot.index(),
            seq: token.seq().and_then(NonZeroU64::new),
            start,
            elapsed_nanos: elapsed,
            budget_nanos: budget,
        });
    }
    if !may_be_reported {
        return;
    }
    let ended = EndedPoll {
        watch,
        location,
        kind,
        slot,
        start,
        elapsed,
        charged,
        budget,
        is_slow: slow,
    };
    ended.report();
}

#[cfg(all(test, not(shotclock_loom)))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tests::{MS, Scene};

    #[test]
    fn slack_of_a_ticked_poll_is_counted_by_half_and_not_charged() {
        let scene = Scene::new();
        let watch = scene.watch("w");
        let budget = watch.budget_nanos();
        let timer = PollTimer::begin(&watch, Location::caller(), Section::POLL);
        let open = timer.open;
        std::mem::forget(timer);
        assert_eq!(open.account(budget, 4_000_000, false), budget);
        let stats = watch.stats();
        assert_eq!((stats.polls, stats.slow_polls), (1, 0));
        assert_eq!((stats.longest, stats.busy), (12 * MS, 12 * MS));
    }

    #[test]
    fn poll_past_half_of_its_budget_is_in_the_flight_record() {
        let is_recorded = |budget: Duration, takes: Duration| {
            let builder = crate::Watchdog::builder().without_tracing().budget(budget);
            let watch = builder.build().unwrap().watch("w");
            let timer = PollTimer::begin(&watch, Location::caller(), Section::POLL);
            std::thread::sleep(takes);
            timer.end();
            let id = watch.counters().id;
            flight_record::read().iter().any(|poll| poll.watch == id)
        };
        assert!(!is_recorded(Duration::from_secs(86_400), MS));
        assert!(is_recorded(20 * MS, 15 * MS));
    }
}

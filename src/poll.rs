//! Floor 5: the hot path, from the entry of a poll to its return.
//!
//! Two readings of the clock, plain stores into the thread's own slot and cells, one comparison. No
//! allocation, no lock, no read-modify-write that is shared with another thread; whatever else there
//! is to do about a poll is done in [`conclude`], which a fast poll never enters.

use std::panic::Location;

use crate::flight_record::{self, Passage};
use crate::overrun::Overrun;
use crate::slot::{self, DOZE, Kind, Mark, Opened, Share, Slot};
use crate::sys;
use crate::watch::{Counted, Watch};

/// What is timed, and the least number of nanoseconds that can be slow there, whatever the budget.
///
/// A destructor must not be slow for next to nothing: who sets a budget near zero, as tests do, wants
/// every poll to be slow and not every future twice.
#[derive(Clone, Copy)]
pub(crate) struct Stretch {
    kind: Kind,
    at_least: u64,
}

impl Stretch {
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

/// One stretch of code in flight: it has the thread until it ends.
///
/// Dropping it, instead of [`end`](Self::end), is how a panic ends it.
pub(crate) struct Possession<'w> {
    open: Open<'w>,
}

/// What is known from the beginning. Copied, so that it stays in registers across the inner poll.
#[derive(Clone, Copy)]
struct Open<'w> {
    watch: &'w Watch,
    location: &'static Location<'static>,
    stretch: Stretch,
    slot: Option<(&'static Slot, Mark)>,
    start: u64,
}

impl<'w> Possession<'w> {
    /// Inlined in every build, as everything between is, so that the stack pointer is that of the
    /// function that polls, or that entered: what it calls is below, and what called it above.
    #[inline(always)]
    pub(crate) fn begin(
        watch: &'w Watch,
        location: &'static Location<'static>,
        stretch: Stretch,
    ) -> Self {
        Self::begin_at(watch, location, stretch, sys::stack_pointer())
    }

    /// Where the stack is that of another function than the caller's; 0 if it is not known.
    #[inline(always)]
    pub(crate) fn begin_at(
        watch: &'w Watch,
        location: &'static Location<'static>,
        stretch: Stretch,
        stack: usize,
    ) -> Self {
        let start = watch.clock().raw();
        let slot = slot::current().map(|slot| {
            let mark = slot.begin(Opened {
                watch: watch.core().id,
                kind: stretch.kind,
                start,
                budget: stretch.budget(watch),
                location,
                stack,
            });
            DOZE.rouse();
            (slot, mark)
        });
        let open = Open {
            watch,
            location,
            stretch,
            slot,
            start,
        };
        Self { open }
    }

    /// Lets go of the watch, which is kept by whoever ends it.
    #[cfg(tokio_unstable)]
    pub(crate) fn loose(self) -> Loose {
        let Open {
            location,
            stretch,
            slot,
            start,
            ..
        } = self.open;
        std::mem::forget(self);
        Loose {
            location,
            stretch,
            slot,
            start,
        }
    }

    #[inline]
    pub(crate) fn end(self) {
        let open = self.open;
        std::mem::forget(self);
        open.close(false);
    }
}

/// A stretch in flight that does not know its watch.
#[cfg(tokio_unstable)]
pub(crate) struct Loose {
    location: &'static Location<'static>,
    stretch: Stretch,
    slot: Option<(&'static Slot, Mark)>,
    start: u64,
}

#[cfg(tokio_unstable)]
impl Loose {
    /// With the watch that it was begun with.
    pub(crate) fn end(self, watch: &Watch) {
        let Self {
            location,
            stretch,
            slot,
            start,
        } = self;
        let open = Open {
            watch,
            location,
            stretch,
            slot,
            start,
        };
        open.close(false);
    }
}

impl Drop for Possession<'_> {
    #[cold]
    fn drop(&mut self) {
        self.open.close(true);
    }
}

impl Open<'_> {
    #[inline]
    fn close(mut self, panicked: bool) {
        if self.stretch.kind == Kind::Entered {
            // A guard may have been kept beyond its thread's slot.
            self.slot = self.slot.filter(|(slot, _)| slot::is_current(slot));
        }
        let clock = self.watch.clock();
        let elapsed = clock.nanos_between(self.start, clock.raw());
        let Share {
            self_time,
            own,
            slow,
            blamed,
        } = self.share(elapsed);
        // A destructor is no poll, so it is in no histogram, unless it was slow (or panicked) and
        // counts as one: slow polls are always among the polls.
        let is_poll = self.stretch.kind != Kind::Drop || slow || panicked;
        // Made where it is used, twice: what a rare path needs in memory stays in registers here.
        let counted = || Counted {
            elapsed,
            self_time,
            is_poll,
            slow,
            panicked,
        };
        let core = self.watch.core();
        let slot = self.slot.map(|(slot, _)| slot);
        match slot.and_then(|slot| core.cells(slot)) {
            Some(cells) => cells.count(counted()),
            None => core.count_rarely(slot, counted()),
        }
        // A poll that was told of while it ran may turn out to be the fault of one inside it; and one
        // past half of its budget is remembered, which is the case for every slow one.
        let budget = self.stretch.budget(self.watch);
        if (elapsed > budget / 2) | blamed {
            let (location, kind) = (self.location, self.stretch.kind);
            let times = [self.start, elapsed, own, budget];
            conclude(
                self.watch,
                location,
                kind,
                self.slot,
                times,
                slow | blamed,
                slow,
            );
        }
    }

    #[inline]
    fn share(&self, elapsed: u64) -> Share {
        let budget = self.stretch.budget(self.watch);
        match self.slot {
            Some((slot, mark)) => {
                slot.end(mark, elapsed, budget, self.stretch.kind != Kind::Entered)
            }
            None => Share {
                self_time: elapsed,
                own: elapsed,
                slow: elapsed > budget,
                blamed: false,
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
    slot: Option<(&'static Slot, Mark)>,
    [start, elapsed, own, budget]: [u64; 4],
    is_to_be_told: bool,
    slow: bool,
) {
    if let (true, Some((slot, _))) = (watch.clock().is_real(), slot) {
        flight_record::note(Passage {
            watch: watch.core().id,
            kind,
            slot: slot.index(),
            start,
            elapsed,
            budget,
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
        own,
        budget,
        slow,
    };
    overrun.report();
}

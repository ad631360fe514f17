//! Floor 5: the hot path, from the entry of a poll to its return.
//!
//! Two readings of the clock, plain stores into the thread's own slot and cells, one comparison. No
//! allocation, no lock, no read-modify-write that is shared with another thread; whatever else there
//! is to do about a poll is done in [`Possession::report`], which a fast poll never enters.

use std::mem::ManuallyDrop;
use std::panic::Location;

use crate::slot::{self, Mark, Share, Slot};
use crate::watch::{Ended, Kind, Watch};

/// A destructor of at most so many nanoseconds is never slow, whatever the budget: who sets a budget
/// near zero, as tests do, wants every poll to be slow and not every future twice.
const QUICK_DROP: u64 = 10_000;

/// One stretch of code in flight: it has the thread until it ends.
///
/// Dropping it, instead of [`end`](Self::end), is how a panic ends it.
pub(crate) struct Possession<'w> {
    watch: &'w Watch,
    location: &'static Location<'static>,
    kind: Kind,
    slot: Option<(&'static Slot, Mark)>,
    start: u64,
}

impl<'w> Possession<'w> {
    #[inline]
    pub(crate) fn begin(
        watch: &'w Watch,
        location: &'static Location<'static>,
        kind: Kind,
    ) -> Self {
        let start = watch.clock().raw();
        let slot = slot::current().map(|slot| (slot, slot.begin(watch.core().id, start)));
        Self {
            watch,
            location,
            kind,
            slot,
            start,
        }
    }

    #[inline]
    pub(crate) fn end(self) {
        ManuallyDrop::new(self).close(false);
    }

    #[inline]
    fn close(&self, panicked: bool) {
        let clock = self.watch.clock();
        let elapsed = clock.nanos_between(self.start, clock.raw());
        let share = self.share(elapsed);
        let slot = self.slot.map(|(slot, _)| slot);
        // A destructor is no poll, so it is in no histogram, unless it was slow (or panicked) and
        // counts as one: slow polls are always among the polls.
        let is_poll = self.kind != Kind::Drop || share.slow || panicked;
        self.watch.core().count(slot, |cells| {
            if is_poll {
                cells.poll(elapsed, share.self_time);
            } else {
                cells.time(share.self_time);
            }
            if panicked {
                cells.panicked();
            }
            if share.slow {
                cells.slow();
            }
        });
        if share.slow {
            self.report(elapsed, share.own);
        }
    }

    #[inline]
    fn share(&self, elapsed: u64) -> Share {
        let budget = match self.kind {
            Kind::Drop => self.watch.budget_nanos().max(QUICK_DROP),
            Kind::Poll | Kind::Entered => self.watch.budget_nanos(),
        };
        match self.slot {
            Some((slot, mark)) => slot.end(mark, elapsed, budget, self.kind != Kind::Entered),
            None => Share {
                self_time: elapsed,
                own: elapsed,
                slow: elapsed > budget,
            },
        }
    }

    #[cold]
    #[inline(never)]
    fn report(&self, elapsed: u64, own: u64) {
        let outer = self
            .slot
            .map(|(slot, mark)| slot.outer_watches(mark).collect());
        let poll = Ended {
            kind: self.kind,
            elapsed,
            own,
            location: self.location,
            outer: outer.unwrap_or_default(),
        };
        self.watch.home().slow.on_slow(self.watch, poll);
    }
}

impl Drop for Possession<'_> {
    #[cold]
    fn drop(&mut self) {
        self.close(true);
    }
}

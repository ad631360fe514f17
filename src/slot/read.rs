//! What any thread may learn of the polls of another one, while they begin and end.

use std::sync::atomic::Ordering::{Acquire, Relaxed};

use super::kind::BY_TICKS;
use super::{
    DEPTH_MASK, InFlightPoll, Kind, NO_WATCH, PollStack, Slot, TOMBSTONE, ThreadDiagnostics,
};
use crate::coarse_clock::COARSE_CLOCK;
use crate::sync::{ModelledGuard, broken, fence, unless_broken};

impl Slot {
    /// Whether a poll that was read is still running. Any thread.
    ///
    /// `state` first: if it is that of a later poll at this depth, its release makes the later
    /// seq visible; and an seq never comes back.
    ///
    /// Of the stretch of a worker nothing is known here: who looks at it asks its runtime.
    pub(crate) fn is_in_flight(&self, poll: &InFlightPoll) -> bool {
        let depth = poll.depth();
        if depth == 0 {
            return true;
        }
        (self.state.load(Acquire) & DEPTH_MASK) as usize >= depth
            && (self.frames[depth].seq.load(Relaxed) == poll.seq || broken("in-flight-seq"))
    }

    /// The diagnostics, if a poll that was read is still running. As long as it is held the poll is not
    /// closed, and its thread does not end.
    pub(crate) fn hold(&self, poll: &InFlightPoll) -> Option<ModelledGuard<'_, ThreadDiagnostics>> {
        let diagnostics = self.diagnostics();
        (self.is_in_flight(poll) || broken("hold-look")).then_some(diagnostics)
    }

    /// A number that is another one after any poll of this thread began or ended.
    pub(crate) fn state(&self) -> u64 {
        self.state.load(Relaxed)
    }

    /// Whether a poll runs on this thread, by its [`state`](Self::state).
    pub(crate) fn is_busy(state: u64) -> bool {
        state & DEPTH_MASK > 0
    }

    /// The polls in flight on this slot's thread. Any thread.
    ///
    /// One that goes by ticks began when its tick was replaced, or, if that is the latest still, has only
    /// just begun.
    ///
    /// Tries again while the owner moves on; an owner that never pauses gets an empty answer after
    /// some tries, because then nothing of it is stuck.
    pub(crate) fn read(&self) -> PollStack {
        const TRIES: usize = 64;
        (0..TRIES).find_map(|_| self.try_read()).unwrap_or_default()
    }

    pub(super) fn try_read(&self) -> Option<PollStack> {
        let state = self.state.load(unless_broken("read-state", Acquire));
        let depth = (state & DEPTH_MASK) as usize;
        let mut nest = PollStack::default();
        for frame in &self.frames[1..=depth] {
            // Before the start, which is written first where a poll is made exact.
            let tag = frame.watch.load(unless_broken("read-tag", Acquire));
            let seq = frame.seq.load(Relaxed);
            // Either says that it was closed out of order, and the other may not say so yet.
            let is_vacated = seq == TOMBSTONE && !broken("read-vacated");
            if tag == NO_WATCH || is_vacated {
                continue;
            }
            nest.push(InFlightPoll {
                watch: Kind::watch_of(tag),
                kind: Kind::of(tag),
                start: began(tag, frame.start.load(Relaxed)),
                budget: frame.budget.load(Relaxed),
                charged_inside: frame.charged_inside.load(Relaxed),
                location: frame.location.get(),
                stack: frame.stack.load(Relaxed) as usize,
                seq,
            });
        }
        fence(Acquire, "read-fence");
        let is_of_one_moment = self.state.load(Relaxed) == state || broken("read-again");
        is_of_one_moment.then_some(nest)
    }
}

/// When a poll began, of which `start` was published under `tag`, at the latest.
fn began(tag: u64, start: u64) -> u64 {
    const JUST_NOW: u64 = u64::MAX;
    match tag & BY_TICKS {
        0 => start,
        _ => COARSE_CLOCK.replaced(start).unwrap_or(JUST_NOW),
    }
}

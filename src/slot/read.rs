//! Reads the polls of a slot from any thread, while they begin and end.

use std::sync::atomic::Ordering::{Acquire, Relaxed};

use super::tag::{kind_of, watch_of};
use super::ticked_polls::latest_start;
use super::{DEPTH_MASK, InFlightPoll, NO_WATCH, PollStack, Slot, TOMBSTONE, ThreadDiagnostics};
use crate::sync::{ModelledGuard, fence};

impl Slot {
    /// Returns whether a poll from a reading still runs. Any thread.
    ///
    /// Loads `state` first. If it is that of a later poll at this depth, its release makes the later `seq` visible, and
    /// no `seq` comes back. The slot knows nothing of a worker's interval, so the answer for one is always true.
    pub(crate) fn is_in_flight(&self, poll: &InFlightPoll) -> bool {
        let depth = poll.depth();
        if depth == 0 {
            return true;
        }
        let state = self.state.load(Acquire); // model: in-flight-state
        let is_as_deep = (state & DEPTH_MASK) as usize >= depth;
        is_as_deep && self.frames[depth].seq.load(Relaxed) == poll.seq // model: in-flight-seq
    }

    /// Locks the diagnostics, if a poll from a reading still runs.
    ///
    /// While the caller holds this lock, the poll cannot be closed and its thread cannot end.
    pub(crate) fn lock_running(
        &self,
        poll: &InFlightPoll,
    ) -> Option<ModelledGuard<'_, ThreadDiagnostics>> {
        let diagnostics = self.diagnostics();
        self.is_in_flight(poll).then_some(diagnostics)
    }

    /// Returns a number that changes whenever a poll of this thread begins or ends.
    pub(crate) fn state(&self) -> u64 {
        self.state.load(Relaxed)
    }

    /// Returns whether a poll runs on a thread, by its [`state`](Self::state).
    pub(crate) fn is_busy(state: u64) -> bool {
        state & DEPTH_MASK > 0
    }

    /// Reads the polls in flight on this slot's thread. Any thread.
    ///
    /// The start of a ticked poll is the moment at which its tick was replaced. If the tick is still the latest, the
    /// poll has just begun.
    ///
    /// This method tries again while the owner begins and ends polls. After 64 tries it returns an empty reading: an
    /// owner that never pauses has no stalled poll.
    pub(crate) fn read(&self) -> PollStack {
        const MAX_TRIES: usize = 64;
        (0..MAX_TRIES)
            .find_map(|_| self.try_read())
            .unwrap_or_default()
    }

    pub(crate) fn try_read(&self) -> Option<PollStack> {
        let state = self.state.load(Acquire); // model: read-state
        let depth = (state & DEPTH_MASK) as usize;
        let mut stack = PollStack::default();
        for frame in &self.frames[1..=depth] {
            // Before `start`, which the owner writes first when it makes a poll exact.
            let tag = frame.watch.load(Acquire); // model: read-tag
            let seq = frame.seq.load(Relaxed);
            // Either of the two words may show the tombstone first.
            if tag == NO_WATCH || seq == TOMBSTONE {
                continue;
            }
            stack.push(InFlightPoll {
                watch: watch_of(tag),
                kind: kind_of(tag),
                start: latest_start(tag, frame.start.load(Relaxed)),
                budget: frame.budget.load(Relaxed),
                charged_inside: frame.charged_inside.load(Relaxed),
                location: frame.location.get(),
                stack: frame.stack.load(Relaxed) as usize,
                seq,
            });
        }
        fence(Acquire); // model: read-fence
        let is_of_one_moment = self.state.load(Relaxed) == state; // model: read-again
        is_of_one_moment.then_some(stack)
    }
}

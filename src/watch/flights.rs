//! Every poll of the process that runs at this moment.

use super::home_of;
use crate::clock::Clock;
use crate::slot::{self, InFlight, Nest, Note, Slot, Standing};

/// One poll in flight, and whether it is a stall.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flight {
    /// The id of the watch.
    pub(crate) watch: u64,
    /// Nanoseconds.
    pub(crate) elapsed: u64,
    /// For how long it has been a stall, in nanoseconds: it is over its budget, less the slow polls inside and
    /// whatever else it is excused for.
    pub(crate) stalled: Option<u64>,
}

/// The polls in flight under one clock. It reads the slots and asks no other thread, so it is true even while
/// the sentinel itself is held up.
pub(crate) fn flights(clock: &Clock) -> Vec<Flight> {
    let now = clock.raw();
    let of_clock = |poll: &InFlight| home_of(poll.watch).is_some_and(|h| h.clock.is_same(clock));
    let mut flights = Vec::new();
    for slot in slot::all() {
        let nest = slot.read().only(of_clock);
        if nest.is_empty() {
            continue;
        }
        let standings = slot.standings(&nest, clock, now);
        let of_watches = standings
            .iter()
            .filter(|standing| !standing.poll.kind.is_off_the_books());
        flights.extend(of_watches.map(|standing| Flight {
            watch: standing.poll.watch,
            elapsed: standing.elapsed,
            stalled: stalled_for(slot, &nest, standing),
        }));
    }
    flights
}

/// For how many nanoseconds a poll has been a stall, if it is one.
///
/// What is excused counts for nothing: what was declared to be allowed, a poll whose worker was handed over,
/// and what the last look found to be the fault of no code.
pub(crate) fn stalled_for(slot: &Slot, nest: &Nest, standing: &Standing) -> Option<u64> {
    if !standing.is_over() || nest.is_contained(&standing.poll) {
        return None;
    }
    let margin = slot.margin();
    let note = margin.noted(&standing.poll);
    if note.is_some_and(Note::is_handed_over) {
        return None;
    }
    let uncharged = note.map_or(0, |note| note.uncharged);
    let charged = standing.own.saturating_sub(uncharged);
    (charged > standing.poll.budget).then_some(charged)
}

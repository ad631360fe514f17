//! Every poll of the process that runs at this moment.

use arrayvec::ArrayVec;

use super::home_of;
use crate::clock::Clock;
use crate::slot::{self, InFlight, MAX_DEPTH, Margin, Nest, Note, Slot, Standing};

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

/// The polls in flight under one clock. It reads the slots and waits for no other thread, so it is true even
/// while the sentinel itself is held up.
pub(crate) fn flights(clock: &Clock) -> Vec<Flight> {
    let now = clock.raw();
    let mut flights = Vec::new();
    for slot in slot::all() {
        let polls = polls_of(slot, clock, now).into_iter();
        let of_watches = polls.filter(|(standing, _)| !standing.poll.kind.is_off_the_books());
        flights.extend(of_watches.map(|(standing, stalled)| Flight {
            watch: standing.poll.watch,
            elapsed: standing.elapsed,
            stalled,
        }));
    }
    flights
}

/// Whether a poll goes by a clock: readings of another one cannot be compared with its start.
pub(crate) fn is_of_clock(poll: &InFlight, clock: &Clock) -> bool {
    home_of(poll.watch).is_some_and(|home| home.clock.is_same(clock))
}

/// The polls in flight on one thread under a clock, innermost first; and for how many nanoseconds each has
/// been a stall, if it is one.
///
/// What is excused counts for nothing: what was declared to be allowed, a poll whose worker was handed over,
/// and what the last look found to be the fault of no code.
pub(crate) fn polls_of(
    slot: &Slot,
    clock: &Clock,
    now: u64,
) -> ArrayVec<(Standing, Option<u64>), MAX_DEPTH> {
    let nest = slot.read().only(|poll| is_of_clock(poll, clock));
    let by_wall = nest.standings_at(clock, now, None);
    if !by_wall.iter().any(Standing::is_over) {
        return by_wall
            .into_iter()
            .map(|standing| (standing, None))
            .collect();
    }
    let margin = slot.margin_soon();
    let margin = margin.as_deref();
    let standings = nest.standings_at(clock, now, margin.map(|margin| &margin.exceptions));
    let stalled = |standing: Standing| (standing, stalled_for(&nest, &standing, margin));
    standings.into_iter().map(stalled).collect()
}

fn stalled_for(nest: &Nest, standing: &Standing, margin: Option<&Margin>) -> Option<u64> {
    let note = margin.and_then(|margin| margin.noted(&standing.poll));
    let is_handed_over =
        nest.is_contained(&standing.poll) || note.is_some_and(Note::is_handed_over);
    let uncharged = note.map_or(0, |note| note.uncharged);
    let charged = standing.own.saturating_sub(uncharged);
    (!is_handed_over && charged > standing.poll.budget).then_some(charged)
}

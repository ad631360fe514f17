//! Reads the polls of the process that are in flight, and finds the stalled ones.

use arrayvec::ArrayVec;

use super::watchdog_of;
use crate::clock::Clock;
use crate::slot::{self, InFlight, MAX_DEPTH, Margin, Nest, Note, Slot, Standing};

/// One poll in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PollInFlight {
    /// The id of the watch.
    pub(crate) watch: u64,
    pub(crate) elapsed_nanos: u64,
    /// The charged time of a stalled poll; `None` for a poll within its budget. The charged time leaves out slow
    /// polls inside, and all that excuses the poll.
    pub(crate) stalled_nanos: Option<u64>,
}

/// Returns the polls in flight whose watchdogs share a clock.
///
/// This function reads the slots and waits for no other thread, so its answer holds while the sentinel is held up.
pub(crate) fn polls_in_flight(clock: &Clock) -> Vec<PollInFlight> {
    let now = clock.raw();
    let mut all = Vec::new();
    for slot in slot::all() {
        let polls = polls_of_slot(slot, clock, now).into_iter();
        let of_watches = polls.filter(|(standing, _)| !standing.poll.kind.is_off_the_books());
        all.extend(of_watches.map(|(standing, stalled_nanos)| PollInFlight {
            watch: standing.poll.watch,
            elapsed_nanos: standing.elapsed,
            stalled_nanos,
        }));
    }
    all
}

/// Returns whether the start of a poll can be compared with readings of a clock.
pub(crate) fn is_of_clock(poll: &InFlight, clock: &Clock) -> bool {
    watchdog_of(poll.watch).is_some_and(|watchdog| watchdog.clock.is_comparable_with(clock))
}

/// Returns the polls in flight on one thread, innermost first, each with its charged nanoseconds if it is stalled.
///
/// Excused time is not charged: time under `allow_blocking`, a poll whose worker was handed over, and the time that
/// the sentinel's last scan attributed to no code.
pub(crate) fn polls_of_slot(
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
    let stalled = |standing: Standing| (standing, stalled_nanos(&nest, &standing, margin));
    standings.into_iter().map(stalled).collect()
}

fn stalled_nanos(nest: &Nest, standing: &Standing, margin: Option<&Margin>) -> Option<u64> {
    let note = margin.and_then(|margin| margin.noted(&standing.poll));
    let is_handed_over =
        nest.is_contained(&standing.poll) || note.is_some_and(Note::is_handed_over);
    let uncharged = note.map_or(0, |note| note.uncharged);
    let charged = standing.own.saturating_sub(uncharged);
    (!is_handed_over && charged > standing.poll.budget).then_some(charged)
}

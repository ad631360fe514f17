//! Every poll of the process that runs at this moment.

use super::home_of;
use crate::clock::Clock;
use crate::slot::{self, InFlight};

/// One poll in flight, and whether it is a stall.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flight {
    /// The id of the watch.
    pub(crate) watch: u64,
    /// Nanoseconds.
    pub(crate) elapsed: u64,
    /// Over its budget, less the slow polls inside.
    pub(crate) stalled: bool,
}

/// The polls in flight under one clock. It reads the slots and asks nobody, so it is true even while
/// the sentinel itself is held up.
pub(crate) fn flights(clock: &Clock) -> Vec<Flight> {
    let now = clock.raw();
    let of_clock = |poll: &InFlight| home_of(poll.watch).is_some_and(|h| h.clock.is_same(clock));
    let mut flights = Vec::new();
    for slot in slot::all() {
        let nest = slot.read().only(of_clock);
        let standings = nest.standings(|poll| clock.nanos_between(poll.start, now));
        let of_watches = standings
            .iter()
            .filter(|standing| !standing.poll.kind.is_off_the_books());
        flights.extend(of_watches.map(|standing| Flight {
            watch: standing.poll.watch,
            elapsed: standing.elapsed,
            stalled: standing.is_over(),
        }));
    }
    flights
}

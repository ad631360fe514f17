//! One look at everything in flight: what is over its budget is told, and when to look again.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::slot::{self, InFlight, Nest, Slot, Standing, Told};
use crate::watch::{Home, Slow, home_of};

/// Looks at the slots, under one clock. The tests step it by hand with a mocked one.
pub(crate) struct Scanner {
    clock: Clock,
    /// The state of each slot when it was last seen.
    states: Vec<u64>,
}

/// What was seen.
#[derive(Debug, PartialEq)]
pub(crate) struct Sight {
    /// Nothing is in flight, and nothing was since the look before.
    pub(crate) is_still: bool,
    /// When the next poll in flight passes its budget, or is to be told again.
    pub(crate) due: Option<Duration>,
}

impl Scanner {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            states: Vec::new(),
        }
    }

    pub(crate) fn look(&mut self) -> Sight {
        let mut sight = Sight {
            is_still: true,
            due: None,
        };
        let slots = slot::all();
        self.states.resize(slots.len(), 0);
        for slot in slots {
            let state = slot.state();
            let before = std::mem::replace(&mut self.states[slot.index()], state);
            sight.is_still &= state == before && !Slot::is_busy(state);
            if Slot::is_busy(state) {
                let due = self.look_at(slot);
                sight.due = [sight.due, due].into_iter().flatten().min();
            }
        }
        sight
    }

    /// Tells what is to be told of one thread's polls, and says when to look at them again.
    fn look_at(&self, slot: &Slot) -> Option<Duration> {
        let is_mine =
            |poll: &InFlight| home_of(poll.watch).is_some_and(|h| h.clock.is_same(&self.clock));
        let nest = slot.read().only(is_mine);
        let now = self.clock.raw();
        let standings = nest.standings(|poll| self.clock.nanos_between(poll.start, now));
        let due = |standing: &Standing| {
            let at = if standing.is_over() {
                tell(slot, &nest, standing)?
            } else {
                // Slow is what is over its budget, not what is at it.
                standing.poll.budget.saturating_add(1)
            };
            Some(Duration::from_nanos(at.saturating_sub(standing.own)))
        };
        standings.iter().filter_map(due).min()
    }
}

/// Tells of a stall if it is time to, and says at what own time to tell of it again.
fn tell(slot: &Slot, nest: &Nest, stall: &Standing) -> Option<u64> {
    if slot.is_mute() {
        return None;
    }
    let home = home_of(stall.poll.watch)?;
    let mut margin = slot.margin();
    if !slot.is_in_flight(&stall.poll) {
        return None;
    }
    let thread = margin.thread()?;
    let told = &mut margin.note(&stall.poll).told;
    let is_due = match *told {
        Told::Nothing => true,
        Told::Running { again_at, .. } => stall.own >= again_at,
        Told::LeftOut | Told::Ended => false,
    };
    if is_due {
        let slow = Slow {
            kind: stall.poll.kind,
            elapsed: stall.elapsed,
            own: stall.own,
            budget: Duration::from_nanos(stall.poll.budget),
            location: stall.poll.location?,
            outer: outer(nest, stall),
            thread,
        };
        on_stall(&home, stall.poll.watch, slow, told);
    }
    match *told {
        Told::Running { again_at, .. } => Some(again_at),
        _ => None,
    }
}

fn on_stall(home: &Arc<Home>, watch: u64, slow: Slow, told: &mut Told) {
    let name = crate::watch::name_of(watch);
    if let Some(core) = name.and_then(|name| home.ledger.get(&name)) {
        home.slow.on_stall(&core, slow, told);
    }
}

/// The ids of the watches around a poll, outermost first.
fn outer(nest: &Nest, stall: &Standing) -> Vec<u64> {
    let is_outer = |poll: &&InFlight| poll.opening != stall.poll.opening;
    nest.iter()
        .take_while(is_outer)
        .map(|poll| poll.watch)
        .collect()
}

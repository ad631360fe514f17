//! Stretches of a thread in which blocking was declared to be allowed, up to a limit.
//!
//! They excuse the polls around them: the time within the limit is not held against a budget when it
//! comes to reporting. One that went past its limit excuses nothing.

use std::sync::Arc;
use std::time::Duration;

use super::{FRAMES, depth_of};
use crate::clock::nanos_of;

/// What was declared to be allowed: for how long, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Allowance {
    /// As [`allow_blocking`](crate::allow_blocking) was given it.
    pub reason: Arc<str>,
    /// For how long at most.
    pub max: Duration,
}

impl Allowance {
    pub(crate) fn new(reason: Arc<str>, max: Duration) -> Self {
        Self { reason, max }
    }

    fn nanos(&self) -> u64 {
        nanos_of(self.max)
    }
}

/// The exceptions of one thread. Times are raw readings of the machine's clock, durations nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Exceptions {
    open: Vec<Exception>,
    /// By depth: what came for a poll of exceptions that have ended. Empty before the first has.
    ended: Vec<Ended>,
    tickets: u64,
}

/// One that has not ended.
#[derive(Clone, Debug)]
struct Exception {
    ticket: u64,
    start: u64,
    allowance: Allowance,
}

#[derive(Debug, Default)]
struct Ended {
    poll: u64,
    excused: u64,
    /// The latest that went past its limit.
    broken: Option<Allowance>,
}

impl Exceptions {
    /// Begins one, and says by which number to end it.
    pub(crate) fn begin(&mut self, start: u64, allowance: Allowance) -> u64 {
        self.tickets += 1;
        self.open.push(Exception {
            ticket: self.tickets,
            start,
            allowance,
        });
        self.tickets
    }

    /// Ends one; `polls` are those in flight around it, and `elapsed` gives the time since a reading.
    pub(crate) fn end(
        &mut self,
        ticket: u64,
        polls: impl Iterator<Item = u64>,
        elapsed: impl Fn(u64) -> u64,
    ) {
        let Some(place) = self.open.iter().position(|open| open.ticket == ticket) else {
            return;
        };
        let Exception {
            start, allowance, ..
        } = self.open.remove(place);
        let nanos = elapsed(start);
        let is_broken = nanos > allowance.nanos();
        // Within another, its time is the other's: it must not be excused twice.
        if !is_broken && !self.open.is_empty() {
            return;
        }
        for poll in polls {
            let ended = self.ended_of(poll);
            if is_broken {
                ended.broken = Some(allowance.clone());
            } else {
                ended.excused += nanos;
            }
        }
    }

    fn ended_of(&mut self, poll: u64) -> &mut Ended {
        self.ended.resize_with(FRAMES, Ended::default);
        let ended = &mut self.ended[depth_of(poll) % FRAMES];
        if ended.poll != poll {
            *ended = Ended {
                poll,
                ..Ended::default()
            };
        }
        ended
    }

    fn ended(&self, poll: u64) -> Option<&Ended> {
        let ended = self.ended.get(depth_of(poll))?;
        (ended.poll == poll).then_some(ended)
    }

    /// How much of a poll that began at `start` is excused so far.
    pub(crate) fn excuse(&self, poll: u64, start: u64, elapsed: impl Fn(u64) -> u64) -> u64 {
        let ended = self.ended(poll).map_or(0, |ended| ended.excused);
        let open = self.open.first().map_or(0, |open| {
            let is_within = elapsed(open.start) <= open.allowance.nanos();
            u64::from(is_within) * elapsed(open.start.max(start))
        });
        ended + open
    }

    /// The latest that went past its limit in a poll.
    pub(crate) fn broken(&self, poll: u64, elapsed: impl Fn(u64) -> u64) -> Option<Allowance> {
        let is_broken = |open: &&Exception| elapsed(open.start) > open.allowance.nanos();
        let open = self.open.iter().rev().find(is_broken);
        let open = open.map(|open| open.allowance.clone());
        open.or_else(|| self.ended(poll)?.broken.clone())
    }

    /// In how many nanoseconds an open one reaches its limit.
    pub(crate) fn due(&self, elapsed: impl Fn(u64) -> u64) -> Option<u64> {
        let open = self.open.first()?;
        open.allowance.nanos().checked_sub(elapsed(open.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The opening of a poll at depth 1.
    const POLL: u64 = 0x101;

    fn allowance(nanos: u64) -> Allowance {
        Allowance::new("a test".into(), Duration::from_nanos(nanos))
    }

    #[test]
    fn time_within_the_limit_is_excused_while_it_lasts_and_afterwards() {
        let mut exceptions = Exceptions::default();
        let ticket = exceptions.begin(100, allowance(50));
        assert_eq!(exceptions.excuse(POLL, 80, |since| 130 - since), 30);
        exceptions.end(ticket, [POLL].into_iter(), |since| 140 - since);
        assert_eq!(exceptions.excuse(POLL, 80, |since| 200 - since), 40);
        assert_eq!(exceptions.excuse(POLL + 0x100, 80, |since| 200 - since), 0);
        assert_eq!(exceptions.broken(POLL, |since| 200 - since), None);
    }

    #[test]
    fn at_the_limit_it_is_kept_to() {
        let mut exceptions = Exceptions::default();
        let at_the_limit = |since| 150 - since;
        let ticket = exceptions.begin(100, allowance(50));
        assert_eq!(exceptions.due(at_the_limit), Some(0));
        assert_eq!(exceptions.excuse(POLL, 80, at_the_limit), 50);
        assert_eq!(exceptions.broken(POLL, at_the_limit), None);
        exceptions.end(ticket, [POLL].into_iter(), at_the_limit);
        assert_eq!(exceptions.excuse(POLL, 80, |since| 200 - since), 50);
        assert_eq!(exceptions.broken(POLL, |since| 200 - since), None);
    }

    #[test]
    fn past_the_limit_nothing_is_excused() {
        let mut exceptions = Exceptions::default();
        let ticket = exceptions.begin(100, allowance(50));
        assert_eq!(exceptions.due(|since| 120 - since), Some(30));
        let late = |since| 151 - since;
        assert_eq!(exceptions.due(late), None);
        assert_eq!(exceptions.excuse(POLL, 80, late), 0);
        assert_eq!(exceptions.broken(POLL, late), Some(allowance(50)));
        exceptions.end(ticket, [POLL].into_iter(), late);
        assert_eq!(exceptions.excuse(POLL, 80, |since| 200 - since), 0);
        let broken = |poll| exceptions.broken(poll, |since| 200 - since);
        assert_eq!(broken(POLL), Some(allowance(50)));
        assert_eq!(broken(POLL + 0x100), None);
    }

    #[test]
    fn a_poll_that_began_inside_is_excused_from_its_own_beginning() {
        let mut exceptions = Exceptions::default();
        exceptions.begin(100, allowance(50));
        assert_eq!(exceptions.excuse(POLL, 120, |since| 130 - since), 10);
    }

    #[test]
    fn one_inside_another_excuses_nothing_twice() {
        let mut exceptions = Exceptions::default();
        let outer = exceptions.begin(100, allowance(500));
        let inner = exceptions.begin(110, allowance(500));
        exceptions.end(inner, [POLL].into_iter(), |since| 150 - since);
        exceptions.end(outer, [POLL].into_iter(), |since| 200 - since);
        exceptions.end(outer, [POLL].into_iter(), |since| 300 - since);
        assert_eq!(exceptions.excuse(POLL, 0, |since| 300 - since), 100);
    }
}

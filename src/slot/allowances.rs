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
///
/// `elapsed` gives the nanoseconds since such a reading everywhere.
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
    /// The innermost poll in flight when it began: it ends with that one, even if its guard was leaked.
    within: Option<u64>,
    allowance: Allowance,
}

#[derive(Debug, Default)]
struct Ended {
    poll: u64,
    excused: u64,
    /// Of that, what lies in slow polls inside, whose whole time the poll is not charged with anyway.
    charged_inside: u64,
    /// The latest that went past its limit.
    broken: Option<Allowance>,
}

impl Exception {
    fn is_past_its_limit(&self, elapsed: impl Fn(u64) -> u64) -> bool {
        elapsed(self.start) > self.allowance.nanos()
    }

    /// Whether it has not ended with the poll that it began in; `polls` are those in flight.
    fn is_open_within(&self, polls: &[u64]) -> bool {
        self.within.is_none_or(|poll| polls.contains(&poll))
    }

    /// Whether a poll that began at `start` has anything to do with its limit: it may have begun after it.
    fn concerns(&self, start: u64, elapsed: impl Fn(u64) -> u64) -> bool {
        elapsed(self.start).saturating_sub(elapsed(start)) <= self.allowance.nanos()
    }
}

impl Exceptions {
    /// Begins one within `polls`, those in flight, outermost first. Says by which number to end it.
    pub(crate) fn begin(
        &mut self,
        start: u64,
        allowance: Allowance,
        polls: &[u64],
        elapsed: impl Fn(u64) -> u64,
    ) -> u64 {
        // Guards that were leaked must not pile up.
        self.open.retain(|open| match open.within {
            Some(poll) => polls.contains(&poll),
            None => !polls.is_empty() || !open.is_past_its_limit(&elapsed),
        });
        self.tickets += 1;
        self.open.push(Exception {
            ticket: self.tickets,
            start,
            within: polls.last().copied(),
            allowance,
        });
        self.tickets
    }

    /// Ends one within `polls`, those in flight, which began at `starts`.
    pub(crate) fn end(
        &mut self,
        ticket: u64,
        polls: &[u64],
        starts: &[u64],
        elapsed: impl Fn(u64) -> u64,
    ) {
        let Some(place) = self.open.iter().position(|open| open.ticket == ticket) else {
            return;
        };
        let exception = self.open.remove(place);
        if !exception.is_open_within(polls) {
            // It was kept beyond its poll, and those in flight now have nothing to do with it.
            return;
        }
        let is_broken = exception.is_past_its_limit(&elapsed);
        // Within another, its time is the other's: it must not be excused twice.
        if !is_broken && self.open(polls).next().is_some() {
            return;
        }
        for (poll, start) in polls.iter().zip(starts) {
            let ended = self.ended_of(*poll);
            if !is_broken {
                ended.excused += elapsed(exception.start).min(elapsed(*start));
            } else if exception.concerns(*start, &elapsed) {
                ended.broken = Some(exception.allowance.clone());
            }
        }
    }

    /// A slow poll that was `excused` for some nanoseconds has ended within `polls`. All of its time is taken from what
    /// those are charged with, so what it was excused for is not to be taken again.
    pub(crate) fn blame(&mut self, excused: u64, polls: &[u64]) {
        for poll in polls.iter().take_while(|_| excused > 0) {
            self.ended_of(*poll).charged_inside += excused;
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

    /// Those that have not ended with the poll that they began in; `polls` are those in flight.
    fn open<'a>(&'a self, polls: &'a [u64]) -> impl DoubleEndedIterator<Item = &'a Exception> {
        self.open.iter().filter(|open| open.is_open_within(polls))
    }

    /// How much of a poll that began at `start` is excused so far. `polls` are those in flight.
    pub(crate) fn excuse(
        &self,
        poll: u64,
        start: u64,
        polls: &[u64],
        elapsed: impl Fn(u64) -> u64,
    ) -> u64 {
        let ended = self.ended(poll);
        let (excused, charged_inside) =
            ended.map_or((0, 0), |ended| (ended.excused, ended.charged_inside));
        let mut within = self
            .open(polls)
            .filter(|open| !open.is_past_its_limit(&elapsed));
        let open = within
            .next()
            .map_or(0, |open| elapsed(open.start).min(elapsed(start)));
        (excused + open).saturating_sub(charged_inside)
    }

    /// The latest that went past its limit in a poll that began at `start`.
    pub(crate) fn broken(
        &self,
        poll: u64,
        start: u64,
        polls: &[u64],
        elapsed: impl Fn(u64) -> u64,
    ) -> Option<Allowance> {
        let is_broken =
            |open: &&Exception| open.is_past_its_limit(&elapsed) && open.concerns(start, &elapsed);
        let open = self.open(polls).rev().find(is_broken);
        let open = open.map(|open| open.allowance.clone());
        open.or_else(|| self.ended(poll)?.broken.clone())
    }

    /// In how many nanoseconds an open one reaches its limit. `polls` are those in flight.
    pub(crate) fn due(&self, polls: &[u64], elapsed: impl Fn(u64) -> u64) -> Option<u64> {
        let open = self.open(polls).next()?;
        open.allowance.nanos().checked_sub(elapsed(open.start))
    }

    /// Whether the thread is within one that is within its limit. `polls` are those in flight.
    pub(crate) fn is_within_one(&self, polls: &[u64], elapsed: impl Fn(u64) -> u64) -> bool {
        let mut open = self.open(polls);
        open.any(|open| !open.is_past_its_limit(&elapsed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seqs of two polls, one within the other, and of a later one in the place of the first.
    const POLL: u64 = 0x101;
    const INNER: u64 = 0x202;
    const LATER: u64 = 0x301;

    fn allowance(nanos: u64) -> Allowance {
        Allowance::new("a test".into(), Duration::from_nanos(nanos))
    }

    /// At a moment.
    fn at(now: u64) -> impl Fn(u64) -> u64 {
        move |since| now.saturating_sub(since)
    }

    #[test]
    fn time_within_the_limit_is_excused_while_it_lasts_and_afterwards() {
        let mut exceptions = Exceptions::default();
        let ticket = exceptions.begin(100, allowance(50), &[POLL], at(100));
        assert_eq!(exceptions.excuse(POLL, 80, &[POLL], at(130)), 30);
        exceptions.end(ticket, &[POLL], &[0], at(140));
        assert_eq!(exceptions.excuse(POLL, 80, &[POLL], at(200)), 40);
        assert_eq!(exceptions.excuse(LATER, 80, &[LATER], at(200)), 0);
        assert_eq!(exceptions.broken(POLL, 80, &[POLL], at(200)), None);
    }

    #[test]
    fn exception_at_its_limit_is_kept_to() {
        let mut exceptions = Exceptions::default();
        let ticket = exceptions.begin(100, allowance(50), &[POLL], at(100));
        assert_eq!(exceptions.due(&[POLL], at(150)), Some(0));
        assert!(exceptions.is_within_one(&[POLL], at(150)));
        assert_eq!(exceptions.excuse(POLL, 80, &[POLL], at(150)), 50);
        assert_eq!(exceptions.broken(POLL, 80, &[POLL], at(150)), None);
        exceptions.end(ticket, &[POLL], &[0], at(150));
        assert_eq!(exceptions.excuse(POLL, 80, &[POLL], at(200)), 50);
        assert_eq!(exceptions.broken(POLL, 80, &[POLL], at(200)), None);
    }

    #[test]
    fn exception_past_its_limit_excuses_nothing() {
        let mut exceptions = Exceptions::default();
        let ticket = exceptions.begin(100, allowance(50), &[POLL], at(100));
        assert_eq!(exceptions.due(&[POLL], at(120)), Some(30));
        assert_eq!(exceptions.due(&[POLL], at(151)), None);
        assert!(!exceptions.is_within_one(&[POLL], at(151)));
        assert_eq!(exceptions.excuse(POLL, 80, &[POLL], at(151)), 0);
        let broken = |exceptions: &Exceptions, poll| exceptions.broken(poll, 80, &[poll], at(151));
        assert_eq!(broken(&exceptions, POLL), Some(allowance(50)));
        exceptions.end(ticket, &[POLL], &[0], at(151));
        assert_eq!(exceptions.excuse(POLL, 80, &[POLL], at(200)), 0);
        assert_eq!(broken(&exceptions, POLL), Some(allowance(50)));
        assert_eq!(broken(&exceptions, LATER), None);
    }

    #[test]
    fn poll_that_began_inside_is_excused_from_its_own_beginning() {
        let mut exceptions = Exceptions::default();
        exceptions.begin(100, allowance(50), &[], at(100));
        assert_eq!(exceptions.excuse(POLL, 120, &[POLL], at(130)), 10);
    }

    #[test]
    fn exception_inside_another_excuses_nothing_twice() {
        let mut exceptions = Exceptions::default();
        let outer = exceptions.begin(100, allowance(500), &[POLL], at(100));
        let inner = exceptions.begin(110, allowance(500), &[POLL], at(110));
        exceptions.end(inner, &[POLL], &[0], at(150));
        exceptions.end(outer, &[POLL], &[0], at(200));
        exceptions.end(outer, &[POLL], &[0], at(300));
        assert_eq!(exceptions.excuse(POLL, 0, &[POLL], at(300)), 100);
    }

    #[test]
    fn exception_of_a_blamed_poll_excuses_the_outer_poll_not_again() {
        let mut exceptions = Exceptions::default();
        let polls = [POLL, INNER];
        let ticket = exceptions.begin(100, allowance(500), &polls, at(100));
        exceptions.end(ticket, &polls, &[80, 90], at(150));
        assert_eq!(exceptions.excuse(POLL, 80, &[POLL], at(160)), 50);
        exceptions.blame(50, &[POLL]);
        assert_eq!(exceptions.excuse(POLL, 80, &[POLL], at(160)), 0);
        // One of its own excuses it.
        let ticket = exceptions.begin(200, allowance(500), &[POLL], at(200));
        assert_eq!(exceptions.excuse(POLL, 80, &[POLL], at(230)), 30);
        exceptions.end(ticket, &[POLL], &[0], at(230));
        assert_eq!(exceptions.excuse(POLL, 80, &[POLL], at(300)), 30);
    }

    #[test]
    fn leaked_exception_ends_with_the_poll_that_it_began_in() {
        let mut exceptions = Exceptions::default();
        exceptions.begin(100, allowance(50), &[POLL], at(100));
        for (poll, now) in [(LATER, 120), (LATER, 500)] {
            assert_eq!(exceptions.excuse(poll, 110, &[poll], at(now)), 0);
            assert_eq!(exceptions.broken(poll, 110, &[poll], at(now)), None);
            assert_eq!(exceptions.due(&[poll], at(now)), None);
            assert!(!exceptions.is_within_one(&[poll], at(now)));
        }
        exceptions.begin(130, allowance(50), &[LATER], at(130));
        assert_eq!(exceptions.open.len(), 1);
    }

    #[test]
    fn leaked_exception_outside_of_polls_marks_none_that_began_past_its_limit() {
        let mut exceptions = Exceptions::default();
        exceptions.begin(100, allowance(50), &[], at(100));
        let broken = |start| exceptions.broken(POLL, start, &[POLL], at(500));
        assert_eq!(broken(150), Some(allowance(50)));
        assert_eq!(broken(151), None);
        exceptions.begin(500, allowance(50), &[], at(500));
        assert_eq!(exceptions.open.len(), 1);
    }

    #[test]
    fn poll_that_began_inside_is_excused_for_no_more_than_its_own_age_afterwards() {
        let mut exceptions = Exceptions::default();
        let ticket = exceptions.begin(100, allowance(500), &[], at(100));
        exceptions.end(ticket, &[POLL], &[180], at(200));
        assert_eq!(exceptions.excuse(POLL, 180, &[POLL], at(300)), 20);
    }

    #[test]
    fn exception_that_is_kept_beyond_its_poll_excuses_and_marks_no_later_one() {
        for now in [120, 300] {
            let mut exceptions = Exceptions::default();
            let ticket = exceptions.begin(100, allowance(50), &[POLL], at(100));
            exceptions.end(ticket, &[LATER], &[90], at(now));
            assert_eq!(exceptions.excuse(LATER, 90, &[LATER], at(400)), 0);
            assert_eq!(exceptions.broken(LATER, 90, &[LATER], at(400)), None);
        }
    }
}

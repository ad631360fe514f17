//! The sections of a thread in which `allow_blocking` allows blocking, up to a limit.
//!
//! An allowance excuses the polls around it: reports do not charge the time within the limit. An allowance that
//! exceeded its limit excuses nothing.

use super::{FRAMES, depth_of};
use crate::report::Allowance;

/// The allowances of one thread. Times are raw readings of the machine's clock, and durations nanoseconds.
///
/// Everywhere, `elapsed` returns the nanoseconds since such a reading, and `polls` are the polls in flight, outermost
/// first.
#[derive(Debug, Default)]
pub(crate) struct Allowances {
    active: Vec<ActiveAllowance>,
    /// By depth: the sums of a poll's ended allowances. Empty before the first one ends.
    ended: Vec<EndedSums>,
    tickets: u64,
}

/// An allowance that has not ended.
#[derive(Clone, Debug)]
struct ActiveAllowance {
    ticket: u64,
    start: u64,
    /// The innermost poll in flight at its begin. The allowance ends with that poll, even if its guard was leaked.
    within: Option<u64>,
    allowance: Allowance,
}

#[derive(Debug, Default)]
struct EndedSums {
    poll: u64,
    excused: u64,
    /// The part of `excused` inside slow polls. All of their time is left out of the poll's charged time anyway.
    charged_inside: u64,
    /// The latest one that exceeded its limit.
    exceeded: Option<Allowance>,
}

impl ActiveAllowance {
    fn is_exceeded(&self, elapsed: impl Fn(u64) -> u64) -> bool {
        elapsed(self.start) > self.allowance.max_nanos()
    }

    /// Returns whether the poll that it began in is still in flight.
    fn is_active_in(&self, polls: &[u64]) -> bool {
        self.within.is_none_or(|poll| polls.contains(&poll))
    }

    /// Returns whether a poll that began at `start` began before the limit.
    fn concerns(&self, start: u64, elapsed: impl Fn(u64) -> u64) -> bool {
        elapsed(self.start).saturating_sub(elapsed(start)) <= self.allowance.max_nanos()
    }
}

impl Allowances {
    /// Begins an allowance. Returns the ticket that ends it.
    pub(crate) fn begin(
        &mut self,
        start: u64,
        allowance: Allowance,
        polls: &[u64],
        elapsed: impl Fn(u64) -> u64,
    ) -> u64 {
        // Leaked guards must not pile up.
        self.active.retain(|active| match active.within {
            Some(poll) => polls.contains(&poll),
            None => !polls.is_empty() || !active.is_exceeded(&elapsed),
        });
        self.tickets += 1;
        self.active.push(ActiveAllowance {
            ticket: self.tickets,
            start,
            within: polls.last().copied(),
            allowance,
        });
        self.tickets
    }

    /// Ends an allowance. `starts` are the starts of `polls`.
    pub(crate) fn end(
        &mut self,
        ticket: u64,
        polls: &[u64],
        starts: &[u64],
        elapsed: impl Fn(u64) -> u64,
    ) {
        let Some(index) = self
            .active
            .iter()
            .position(|active| active.ticket == ticket)
        else {
            return;
        };
        let allowance = self.active.remove(index);
        if !allowance.is_active_in(polls) {
            // The guard outlived its poll, so the polls in flight have nothing to do with it.
            return;
        }
        let is_exceeded = allowance.is_exceeded(&elapsed);
        // Inside another allowance, the other one excuses its time.
        if !is_exceeded && self.active_in(polls).next().is_some() {
            return;
        }
        for (poll, start) in polls.iter().zip(starts) {
            let ended = self.ended_of(*poll);
            if !is_exceeded {
                ended.excused += elapsed(allowance.start).min(elapsed(*start));
            } else if allowance.concerns(*start, &elapsed) {
                ended.exceeded = Some(allowance.allowance.clone());
            }
        }
    }

    /// Records that a slow poll inside `polls` has ended, which was `excused` for some nanoseconds.
    ///
    /// None of the slow poll's time is charged to the outer polls, so they must not be excused for it again.
    pub(crate) fn charge_inside(&mut self, excused: u64, polls: &[u64]) {
        for poll in polls.iter().take_while(|_| excused > 0) {
            self.ended_of(*poll).charged_inside += excused;
        }
    }

    fn ended_of(&mut self, poll: u64) -> &mut EndedSums {
        self.ended.resize_with(FRAMES, EndedSums::default);
        let ended = &mut self.ended[depth_of(poll) % FRAMES];
        if ended.poll != poll {
            *ended = EndedSums {
                poll,
                ..EndedSums::default()
            };
        }
        ended
    }

    fn ended(&self, poll: u64) -> Option<&EndedSums> {
        let ended = self.ended.get(depth_of(poll))?;
        (ended.poll == poll).then_some(ended)
    }

    /// Iterates over the allowances whose poll is still in flight.
    fn active_in<'a>(
        &'a self,
        polls: &'a [u64],
    ) -> impl DoubleEndedIterator<Item = &'a ActiveAllowance> {
        self.active
            .iter()
            .filter(|active| active.is_active_in(polls))
    }

    /// Returns how many nanoseconds of a poll that began at `start` are excused so far.
    pub(crate) fn excused(
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
            .active_in(polls)
            .filter(|active| !active.is_exceeded(&elapsed));
        let active = within
            .next()
            .map_or(0, |active| elapsed(active.start).min(elapsed(start)));
        (excused + active).saturating_sub(charged_inside)
    }

    /// Returns the latest allowance that exceeded its limit in a poll that began at `start`.
    pub(crate) fn exceeded(
        &self,
        poll: u64,
        start: u64,
        polls: &[u64],
        elapsed: impl Fn(u64) -> u64,
    ) -> Option<Allowance> {
        let is_exceeded = |active: &&ActiveAllowance| {
            active.is_exceeded(&elapsed) && active.concerns(start, &elapsed)
        };
        let active = self.active_in(polls).rev().find(is_exceeded);
        let active = active.map(|active| active.allowance.clone());
        active.or_else(|| self.ended(poll)?.exceeded.clone())
    }

    /// Returns in how many nanoseconds the active allowance reaches its limit.
    pub(crate) fn due(&self, polls: &[u64], elapsed: impl Fn(u64) -> u64) -> Option<u64> {
        let active = self.active_in(polls).next()?;
        active
            .allowance
            .max_nanos()
            .checked_sub(elapsed(active.start))
    }

    /// Returns whether an allowance is active and within its limit.
    pub(crate) fn is_any_active(&self, polls: &[u64], elapsed: impl Fn(u64) -> u64) -> bool {
        let mut active = self.active_in(polls);
        active.any(|active| !active.is_exceeded(&elapsed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// The seqs of two polls, one within the other, and of a later one in the place of the first.
    const POLL: u64 = 0x101;
    const INNER: u64 = 0x202;
    const LATER: u64 = 0x301;

    fn allowance(nanos: u64) -> Allowance {
        Allowance::new("a test".into(), Duration::from_nanos(nanos))
    }

    /// Returns `elapsed` as of a moment.
    fn at(now: u64) -> impl Fn(u64) -> u64 {
        move |since| now.saturating_sub(since)
    }

    #[test]
    fn excused_within_the_limit_counts_during_and_after_the_allowance() {
        let mut allowances = Allowances::default();
        let ticket = allowances.begin(100, allowance(50), &[POLL], at(100));
        assert_eq!(allowances.excused(POLL, 80, &[POLL], at(130)), 30);
        allowances.end(ticket, &[POLL], &[0], at(140));
        assert_eq!(allowances.excused(POLL, 80, &[POLL], at(200)), 40);
        assert_eq!(allowances.excused(LATER, 80, &[LATER], at(200)), 0);
        assert_eq!(allowances.exceeded(POLL, 80, &[POLL], at(200)), None);
    }

    #[test]
    fn allowance_at_its_limit_is_not_exceeded() {
        let mut allowances = Allowances::default();
        let ticket = allowances.begin(100, allowance(50), &[POLL], at(100));
        assert_eq!(allowances.due(&[POLL], at(150)), Some(0));
        assert!(allowances.is_any_active(&[POLL], at(150)));
        assert_eq!(allowances.excused(POLL, 80, &[POLL], at(150)), 50);
        assert_eq!(allowances.exceeded(POLL, 80, &[POLL], at(150)), None);
        allowances.end(ticket, &[POLL], &[0], at(150));
        assert_eq!(allowances.excused(POLL, 80, &[POLL], at(200)), 50);
        assert_eq!(allowances.exceeded(POLL, 80, &[POLL], at(200)), None);
    }

    #[test]
    fn allowance_past_its_limit_excuses_nothing() {
        let mut allowances = Allowances::default();
        let ticket = allowances.begin(100, allowance(50), &[POLL], at(100));
        assert_eq!(allowances.due(&[POLL], at(120)), Some(30));
        assert_eq!(allowances.due(&[POLL], at(151)), None);
        assert!(!allowances.is_any_active(&[POLL], at(151)));
        assert_eq!(allowances.excused(POLL, 80, &[POLL], at(151)), 0);
        let exceeded =
            |allowances: &Allowances, poll| allowances.exceeded(poll, 80, &[poll], at(151));
        assert_eq!(exceeded(&allowances, POLL), Some(allowance(50)));
        allowances.end(ticket, &[POLL], &[0], at(151));
        assert_eq!(allowances.excused(POLL, 80, &[POLL], at(200)), 0);
        assert_eq!(exceeded(&allowances, POLL), Some(allowance(50)));
        assert_eq!(exceeded(&allowances, LATER), None);
    }

    #[test]
    fn poll_begun_inside_is_excused_from_its_own_start() {
        let mut allowances = Allowances::default();
        allowances.begin(100, allowance(50), &[], at(100));
        assert_eq!(allowances.excused(POLL, 120, &[POLL], at(130)), 10);
    }

    #[test]
    fn nested_allowance_excuses_nothing_twice() {
        let mut allowances = Allowances::default();
        let outer = allowances.begin(100, allowance(500), &[POLL], at(100));
        let inner = allowances.begin(110, allowance(500), &[POLL], at(110));
        allowances.end(inner, &[POLL], &[0], at(150));
        allowances.end(outer, &[POLL], &[0], at(200));
        allowances.end(outer, &[POLL], &[0], at(300));
        assert_eq!(allowances.excused(POLL, 0, &[POLL], at(300)), 100);
    }

    #[test]
    fn allowance_of_a_charged_poll_does_not_excuse_the_outer_poll_again() {
        let mut allowances = Allowances::default();
        let polls = [POLL, INNER];
        let ticket = allowances.begin(100, allowance(500), &polls, at(100));
        allowances.end(ticket, &polls, &[80, 90], at(150));
        assert_eq!(allowances.excused(POLL, 80, &[POLL], at(160)), 50);
        allowances.charge_inside(50, &[POLL]);
        assert_eq!(allowances.excused(POLL, 80, &[POLL], at(160)), 0);
        // One of its own excuses it.
        let ticket = allowances.begin(200, allowance(500), &[POLL], at(200));
        assert_eq!(allowances.excused(POLL, 80, &[POLL], at(230)), 30);
        allowances.end(ticket, &[POLL], &[0], at(230));
        assert_eq!(allowances.excused(POLL, 80, &[POLL], at(300)), 30);
    }

    #[test]
    fn leaked_allowance_ends_with_its_poll() {
        let mut allowances = Allowances::default();
        allowances.begin(100, allowance(50), &[POLL], at(100));
        for (poll, now) in [(LATER, 120), (LATER, 500)] {
            assert_eq!(allowances.excused(poll, 110, &[poll], at(now)), 0);
            assert_eq!(allowances.exceeded(poll, 110, &[poll], at(now)), None);
            assert_eq!(allowances.due(&[poll], at(now)), None);
            assert!(!allowances.is_any_active(&[poll], at(now)));
        }
        allowances.begin(130, allowance(50), &[LATER], at(130));
        assert_eq!(allowances.active.len(), 1);
    }

    #[test]
    fn leaked_allowance_outside_of_polls_marks_no_poll_begun_past_its_limit() {
        let mut allowances = Allowances::default();
        allowances.begin(100, allowance(50), &[], at(100));
        let exceeded = |start| allowances.exceeded(POLL, start, &[POLL], at(500));
        assert_eq!(exceeded(150), Some(allowance(50)));
        assert_eq!(exceeded(151), None);
        allowances.begin(500, allowance(50), &[], at(500));
        assert_eq!(allowances.active.len(), 1);
    }

    #[test]
    fn poll_begun_inside_is_excused_for_at_most_its_own_age() {
        let mut allowances = Allowances::default();
        let ticket = allowances.begin(100, allowance(500), &[], at(100));
        allowances.end(ticket, &[POLL], &[180], at(200));
        assert_eq!(allowances.excused(POLL, 180, &[POLL], at(300)), 20);
    }

    #[test]
    fn allowance_kept_beyond_its_poll_excuses_and_marks_no_later_poll() {
        for now in [120, 300] {
            let mut allowances = Allowances::default();
            let ticket = allowances.begin(100, allowance(50), &[POLL], at(100));
            allowances.end(ticket, &[LATER], &[90], at(now));
            assert_eq!(allowances.excused(LATER, 90, &[LATER], at(400)), 0);
            assert_eq!(allowances.exceeded(LATER, 90, &[LATER], at(400)), None);
        }
    }
}

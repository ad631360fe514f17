//! The polls in flight on one thread, as another thread reads them.

use std::panic::Location;

use arrayvec::ArrayVec;

use super::{DEPTH_BITS, Exceptions, Kind, MAX_DEPTH, Seqs, depth_of};
use crate::clock::Clock;

/// One poll in flight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct InFlightPoll {
    /// The id of the watch.
    pub(crate) watch: u64,
    pub(crate) kind: Kind,
    /// When it began, as a raw reading of its watch's clock.
    pub(crate) start: u64,
    /// Nanoseconds.
    pub(crate) budget: u64,
    /// Nanoseconds of slow polls inside this one that ended and were charged_inside already.
    pub(crate) charged_inside: u64,
    pub(crate) location: Option<&'static Location<'static>>,
    /// The stack pointer where it began, or 0.
    pub(crate) stack: usize,
    /// The number of this poll on its thread; no other one ever has it there.
    pub(crate) seq: u64,
}

impl InFlightPoll {
    /// The stretch of a worker's that is looked at as if it were a poll around all others: at the depth
    /// of the ground, where no poll is. No two that follow each other on a thread have one number.
    pub(crate) fn of_worker(number: u64, start: u64, budget: u64) -> Self {
        Self {
            watch: u64::MAX,
            kind: Kind::Poll,
            start,
            budget,
            charged_inside: 0,
            location: None,
            stack: 0,
            seq: number << DEPTH_BITS,
        }
    }

    #[cfg(test)]
    pub(super) fn of_seq(seq: u64) -> Self {
        Self {
            watch: 0,
            kind: Kind::Poll,
            start: 0,
            budget: 0,
            charged_inside: 0,
            location: None,
            stack: 0,
            seq,
        }
    }

    pub(super) fn depth(&self) -> usize {
        depth_of(self.seq)
    }
}

/// The polls in flight on one thread, outermost first.
#[derive(Clone, Debug, Default)]
pub(crate) struct PollStack {
    polls: ArrayVec<InFlightPoll, MAX_DEPTH>,
}

/// How a poll that still runs stands with its budget. Nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct BudgetStatus {
    pub(crate) poll: InFlightPoll,
    pub(crate) elapsed: u64,
    /// Less the slow polls inside, ended or not, and less what was declared to be allowed: what is held
    /// against the budget.
    pub(crate) charged: u64,
}

impl BudgetStatus {
    pub(crate) fn is_over(&self) -> bool {
        self.charged > self.poll.budget
    }
}

impl PollStack {
    pub(super) fn push(&mut self, poll: InFlightPoll) {
        // A thread has no more than that.
        let _ = self.polls.try_push(poll);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.polls.is_empty()
    }

    /// Those that are wanted.
    pub(crate) fn only(mut self, wanted: impl Fn(&InFlightPoll) -> bool) -> Self {
        self.polls.retain(|poll| wanted(poll));
        self
    }

    /// Outermost first.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &InFlightPoll> + Clone {
        self.polls.iter()
    }

    /// The numbers of the polls, outermost first.
    pub(crate) fn seqs(&self) -> Seqs {
        self.iter().map(|poll| poll.seq).collect()
    }

    /// Whether the thread has handed its worker to another one before it began a poll, or one around it.
    pub(crate) fn is_contained(&self, poll: &InFlightPoll) -> bool {
        let is_around = |other: &&InFlightPoll| other.depth() <= poll.depth();
        let mut around = self.iter().filter(is_around);
        around.any(|poll| poll.kind == Kind::Contained)
    }

    /// Where each poll stands at a reading of a clock that is theirs, innermost first. `exceptions` are those
    /// of the thread, if they count.
    pub(crate) fn budget_statuses_at(
        &self,
        clock: &Clock,
        now: u64,
        exceptions: Option<&Exceptions>,
    ) -> BudgetStatuses {
        let elapsed = |since| clock.nanos_between(since, now);
        let polls = self.seqs();
        // Readings of a mocked clock cannot be compared with those of the machine's.
        let exceptions = exceptions.filter(|_| clock.is_real());
        let excuse = |poll: &InFlightPoll| {
            exceptions.map_or(0, |exceptions| {
                exceptions.excuse(poll.seq, poll.start, &polls, elapsed)
            })
        };
        self.budget_statuses(|poll| elapsed(poll.start), excuse)
    }

    /// Where each poll stands at one moment, innermost first; `elapsed` gives its age, and `excuse` for how
    /// much of that it is excused.
    ///
    /// It is the arithmetic of [`Slot::end`](super::Slot::end) over polls that have not ended: what
    /// is over its budget excuses what is around it by all of its age; a poll off the books neither
    /// excuses nor is excused.
    fn budget_statuses(
        &self,
        elapsed: impl Fn(&InFlightPoll) -> u64,
        excuse: impl Fn(&InFlightPoll) -> u64,
    ) -> BudgetStatuses {
        let mut budget_statuses = BudgetStatuses::new();
        // The ages of slow polls inside, and for how much of those they are excused.
        let (mut inside, mut excused_inside) = (0, 0);
        for poll in self.iter().rev() {
            let (elapsed, excused) = (elapsed(poll), excuse(poll));
            let is_off_the_books = poll.kind.is_off_the_books();
            let by_wall = match is_off_the_books {
                true => elapsed,
                false => elapsed.saturating_sub(poll.charged_inside + inside),
            };
            let excuse = match is_off_the_books {
                true => excused,
                false => excused.saturating_sub(excused_inside),
            };
            budget_statuses.push(BudgetStatus {
                poll: *poll,
                elapsed,
                charged: by_wall.saturating_sub(excuse),
            });
            if by_wall > poll.budget && !is_off_the_books {
                (inside, excused_inside) = (elapsed, excused);
            } else {
                inside += poll.charged_inside;
            }
        }
        budget_statuses
    }
}

/// Innermost first.
pub(crate) type BudgetStatuses = ArrayVec<BudgetStatus, MAX_DEPTH>;

#[cfg(test)]
mod tests {
    use super::*;

    /// Ages and budgets, outermost first.
    fn charged(polls: &[(u64, u64, u64)]) -> Vec<(u64, bool)> {
        own_with(polls, None)
    }

    /// One of the polls is an audited one.
    fn own_with(polls: &[(u64, u64, u64)], audited: Option<usize>) -> Vec<(u64, bool)> {
        let mut nest = PollStack::default();
        for (depth, (age, budget, charged_inside)) in polls.iter().enumerate() {
            nest.push(InFlightPoll {
                kind: match audited {
                    Some(at) if at == depth => Kind::Audited,
                    _ => Kind::Poll,
                },
                start: 100 - age,
                budget: *budget,
                charged_inside: *charged_inside,
                ..InFlightPoll::of_seq(depth as u64 + 1)
            });
        }
        let budget_statuses = nest.budget_statuses(|poll| 100 - poll.start, |_| 0);
        let mut all: Vec<_> = budget_statuses
            .iter()
            .map(|s| (s.charged, s.is_over()))
            .collect();
        all.reverse();
        all
    }

    #[test]
    fn stretches_of_a_worker_are_told_apart_below_all_polls() {
        let stretches = [1, 2, 0x300].map(|number| InFlightPoll::of_worker(number, 0, 0));
        assert!(stretches.iter().all(|stretch| stretch.depth() == 0));
        assert!(stretches.is_sorted_by(|one, next| one.seq < next.seq));
    }

    #[test]
    fn the_innermost_that_is_over_its_budget_excuses_those_around() {
        assert_eq!(
            charged(&[(15, 10, 0), (12, 10, 0)]),
            [(3, false), (12, true)]
        );
        assert_eq!(
            charged(&[(30, 10, 0), (12, 10, 0)]),
            [(18, true), (12, true)]
        );
    }

    #[test]
    fn one_within_its_budget_excuses_nobody() {
        assert_eq!(
            charged(&[(12, 10, 0), (9, 10, 0)]),
            [(12, true), (9, false)]
        );
    }

    #[test]
    fn what_was_blamed_already_is_handed_outwards() {
        assert_eq!(
            charged(&[(55, 10, 0), (53, 10, 50), (2, 10, 0)]),
            [(5, false), (3, false), (2, false)]
        );
    }

    #[test]
    fn an_audited_poll_neither_excuses_nor_is_excused() {
        let polls = [(30, 10, 0), (25, 10, 3), (12, 10, 0)];
        let expected = [(15, true), (25, true), (12, true)];
        assert_eq!(own_with(&polls, Some(1)), expected);
        let polls = [(30, 10, 0), (25, 10, 3), (9, 10, 0)];
        let expected = [(27, true), (25, true), (9, false)];
        assert_eq!(own_with(&polls, Some(1)), expected);
    }

    #[test]
    fn allowed_time_is_charged_to_no_poll_and_taken_from_each_once() {
        let mut nest = PollStack::default();
        for (depth, age) in [(1, 80), (2, 50)] {
            nest.push(InFlightPoll {
                start: 100 - age,
                budget: 10,
                ..InFlightPoll::of_seq(depth)
            });
        }
        let charged = |excuses: [u64; 2]| {
            let excuse = |poll: &InFlightPoll| excuses[poll.depth() - 1];
            let budget_statuses = nest.budget_statuses(|poll| 100 - poll.start, excuse);
            [budget_statuses[1].charged, budget_statuses[0].charged]
        };
        assert_eq!(charged([0, 0]), [30, 50]);
        // The inner poll is allowed all of its time, and the outer one has 30 of its charged.
        assert_eq!(charged([50, 50]), [30, 0]);
        // The outer one is allowed 25 more.
        assert_eq!(charged([75, 50]), [5, 0]);
        assert_eq!(charged([75, 45]), [0, 5]);
    }

    #[test]
    fn poll_inside_a_contained_one_is_contained() {
        let mut nest = PollStack::default();
        for (depth, kind) in [(1, Kind::Poll), (2, Kind::Contained), (3, Kind::Poll)] {
            nest.push(InFlightPoll {
                kind,
                ..InFlightPoll::of_seq(depth)
            });
        }
        let contained: Vec<_> = nest.iter().map(|poll| nest.is_contained(poll)).collect();
        assert_eq!(contained, [false, true, true]);
    }
}

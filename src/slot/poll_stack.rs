//! A reading of the polls in flight on one thread.

use std::panic::Location;

use arrayvec::ArrayVec;

use super::{Allowances, DEPTH_BITS, MAX_DEPTH, Seqs, depth_of};
use crate::clock::Clock;
use crate::report::SectionKind;

/// One poll in flight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct InFlightPoll {
    /// The id of the watch.
    pub(crate) watch: u64,
    pub(crate) kind: SectionKind,
    /// The begin, as a raw reading of the watch's clock.
    pub(crate) start: u64,
    /// Nanoseconds.
    pub(crate) budget: u64,
    /// Nanoseconds of slow polls inside this one that have ended.
    pub(crate) charged_inside: u64,
    pub(crate) location: Option<&'static Location<'static>>,
    /// The stack pointer at the begin, or 0.
    pub(crate) stack: usize,
    /// The sequence number of the poll, unique on its thread.
    pub(crate) seq: u64,
}

impl InFlightPoll {
    /// Makes a reading for an interval of a worker, so that the diagnosis of polls also serves workers.
    ///
    /// It has the depth of the root, where no poll is. Consecutive intervals on a thread have different numbers.
    pub(crate) fn of_worker(number: u64, start: u64, budget: u64) -> Self {
        Self {
            watch: u64::MAX,
            kind: SectionKind::Poll,
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
            kind: SectionKind::Poll,
            start: 0,
            budget: 0,
            charged_inside: 0,
            location: None,
            stack: 0,
            seq,
        }
    }

    pub(crate) fn depth(&self) -> usize {
        depth_of(self.seq)
    }
}

/// The polls in flight on one thread, outermost first.
#[derive(Clone, Debug, Default)]
pub(crate) struct PollStack {
    polls: ArrayVec<InFlightPoll, MAX_DEPTH>,
}

/// The time of a running poll, against its budget. Nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct BudgetStatus {
    pub(crate) poll: InFlightPoll,
    pub(crate) elapsed: u64,
    /// Without the slow polls inside, ended or not, and without the time under `allow_blocking`.
    pub(crate) charged: u64,
}

impl BudgetStatus {
    pub(crate) fn is_over(&self) -> bool {
        self.charged > self.poll.budget
    }
}

impl PollStack {
    pub(super) fn push(&mut self, poll: InFlightPoll) {
        // A slot has no more frames than this.
        let _ = self.polls.try_push(poll);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.polls.is_empty()
    }

    /// Keeps the polls for which `keep` returns true.
    pub(crate) fn filter(mut self, keep: impl Fn(&InFlightPoll) -> bool) -> Self {
        self.polls.retain(|poll| keep(poll));
        self
    }

    /// Iterates over the polls, outermost first.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &InFlightPoll> + Clone {
        self.polls.iter()
    }

    /// Returns the sequence numbers, outermost first.
    pub(crate) fn seqs(&self) -> Seqs {
        self.iter().map(|poll| poll.seq).collect()
    }

    /// Returns whether the thread handed its worker over before a poll, or before a poll around it.
    pub(crate) fn is_contained(&self, poll: &InFlightPoll) -> bool {
        let is_around = |other: &&InFlightPoll| other.depth() <= poll.depth();
        let mut around = self.iter().filter(is_around);
        around.any(|poll| poll.kind == SectionKind::Contained)
    }

    /// Returns the status of each poll at a reading of their clock, innermost first. `allowances` are those of the
    /// thread, if they count.
    pub(crate) fn budget_statuses_at(
        &self,
        clock: &Clock,
        now: u64,
        allowances: Option<&Allowances>,
    ) -> BudgetStatuses {
        let elapsed = |since| clock.nanos_between(since, now);
        let polls = self.seqs();
        // Allowances are on the machine's clock, which cannot be compared with a mocked one.
        let allowances = allowances.filter(|_| clock.is_real());
        let excuse = |poll: &InFlightPoll| {
            allowances.map_or(0, |allowances| {
                allowances.excused(poll.seq, poll.start, &polls, elapsed)
            })
        };
        self.budget_statuses(|poll| elapsed(poll.start), excuse)
    }

    /// Returns the status of each poll, innermost first. `elapsed` returns the age of a poll, and `excuse` its excused
    /// part.
    ///
    /// It is the arithmetic of [`Slot::end`](super::Slot::end) for polls that have not ended. A poll over its budget
    /// excuses the polls around it by all of its age. An uncounted poll excuses nothing and is excused by nothing.
    fn budget_statuses(
        &self,
        elapsed: impl Fn(&InFlightPoll) -> u64,
        excuse: impl Fn(&InFlightPoll) -> u64,
    ) -> BudgetStatuses {
        let mut budget_statuses = BudgetStatuses::new();
        // The ages of slow polls inside, and the excused part of them.
        let (mut inside, mut excused_inside) = (0, 0);
        for poll in self.iter().rev() {
            let (elapsed, excused) = (elapsed(poll), excuse(poll));
            let is_uncounted = poll.kind.is_uncounted();
            let by_wall = match is_uncounted {
                true => elapsed,
                false => elapsed.saturating_sub(poll.charged_inside + inside),
            };
            let excuse = match is_uncounted {
                true => excused,
                false => excused.saturating_sub(excused_inside),
            };
            budget_statuses.push(BudgetStatus {
                poll: *poll,
                elapsed,
                charged: by_wall.saturating_sub(excuse),
            });
            if by_wall > poll.budget && !is_uncounted {
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

    /// Takes ages, budgets and times charged inside, outermost first.
    fn charged(polls: &[(u64, u64, u64)]) -> Vec<(u64, bool)> {
        charged_with(polls, None)
    }

    /// The poll at index `audited` is an audited one.
    fn charged_with(polls: &[(u64, u64, u64)], audited: Option<usize>) -> Vec<(u64, bool)> {
        let mut stack = PollStack::default();
        for (depth, (age, budget, charged_inside)) in polls.iter().enumerate() {
            stack.push(InFlightPoll {
                kind: match audited {
                    Some(at) if at == depth => SectionKind::Audited,
                    _ => SectionKind::Poll,
                },
                start: 100 - age,
                budget: *budget,
                charged_inside: *charged_inside,
                ..InFlightPoll::of_seq(depth as u64 + 1)
            });
        }
        let budget_statuses = stack.budget_statuses(|poll| 100 - poll.start, |_| 0);
        let mut all: Vec<_> = budget_statuses
            .iter()
            .map(|s| (s.charged, s.is_over()))
            .collect();
        all.reverse();
        all
    }

    #[test]
    fn of_worker_gives_distinct_readings_at_the_root() {
        let intervals = [1, 2, 0x300].map(|number| InFlightPoll::of_worker(number, 0, 0));
        assert!(intervals.iter().all(|interval| interval.depth() == 0));
        assert!(intervals.is_sorted_by(|one, next| one.seq < next.seq));
    }

    #[test]
    fn innermost_poll_over_budget_excuses_the_outer_polls() {
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
    fn poll_within_its_budget_excuses_no_outer_poll() {
        assert_eq!(
            charged(&[(12, 10, 0), (9, 10, 0)]),
            [(12, true), (9, false)]
        );
    }

    #[test]
    fn time_charged_inside_passes_to_the_outer_polls() {
        assert_eq!(
            charged(&[(55, 10, 0), (53, 10, 50), (2, 10, 0)]),
            [(5, false), (3, false), (2, false)]
        );
    }

    #[test]
    fn audited_poll_neither_excuses_nor_is_excused() {
        let polls = [(30, 10, 0), (25, 10, 3), (12, 10, 0)];
        let expected = [(15, true), (25, true), (12, true)];
        assert_eq!(charged_with(&polls, Some(1)), expected);
        let polls = [(30, 10, 0), (25, 10, 3), (9, 10, 0)];
        let expected = [(27, true), (25, true), (9, false)];
        assert_eq!(charged_with(&polls, Some(1)), expected);
    }

    #[test]
    fn allowed_time_is_subtracted_once_from_each_poll() {
        let mut stack = PollStack::default();
        for (depth, age) in [(1, 80), (2, 50)] {
            stack.push(InFlightPoll {
                start: 100 - age,
                budget: 10,
                ..InFlightPoll::of_seq(depth)
            });
        }
        let charged = |excuses: [u64; 2]| {
            let excuse = |poll: &InFlightPoll| excuses[poll.depth() - 1];
            let budget_statuses = stack.budget_statuses(|poll| 100 - poll.start, excuse);
            [budget_statuses[1].charged, budget_statuses[0].charged]
        };
        assert_eq!(charged([0, 0]), [30, 50]);
        // All of the inner poll is allowed, and 30 of the outer poll are its own.
        assert_eq!(charged([50, 50]), [30, 0]);
        // 25 more of the outer poll are allowed.
        assert_eq!(charged([75, 50]), [5, 0]);
        assert_eq!(charged([75, 45]), [0, 5]);
    }

    #[test]
    fn poll_inside_a_contained_one_is_contained() {
        let mut stack = PollStack::default();
        for (depth, kind) in [
            (1, SectionKind::Poll),
            (2, SectionKind::Contained),
            (3, SectionKind::Poll),
        ] {
            stack.push(InFlightPoll {
                kind,
                ..InFlightPoll::of_seq(depth)
            });
        }
        let contained: Vec<_> = stack.iter().map(|poll| stack.is_contained(poll)).collect();
        assert_eq!(contained, [false, true, true]);
    }
}

//! What is written down of one audit.

use std::panic::Location;
use std::time::Duration;

use super::lookout::{PLACE, Seen};
use super::origin::Origin;
use super::times::{Own, Times};
use crate::attribution;
use crate::cause::Split;
use crate::clock::nanos_of;
use crate::liveness::silence_of_both;
use crate::overrun;
use crate::report::{self, SlowPoll};
use crate::slot::{Diagnosis, Kind, ThreadInfo};
use crate::suspension::{self, SUSPENSIONS};
use crate::watch::{Slow, shortest_budget};

/// One poll of an audited future.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditedPoll {
    /// How long it took.
    pub elapsed: Duration,
    /// How long it took by its own doing: it had a processor, or waited of its own accord. Where the
    /// operating system does not account for the rest, it is all of `elapsed`.
    pub active: Duration,
    /// What is held against a budget: its own time less what
    /// [`allow_blocking`](crate::allow_blocking) declared to be allowed.
    pub charged: Duration,
}

/// An audit: of what, asked for where, and the polls in their order.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) origin: Origin,
    pub(super) location: &'static Location<'static>,
    pub(super) budget: Duration,
    pub(super) wake_ups: u64,
    pub(super) polls: Vec<AuditedPoll>,
    pub(super) yields: u64,
    /// Whether a poll panicked: that has more to say than how long it took.
    pub(super) has_panicked: bool,
    /// Whether there was a poll of which only the wall time is known.
    pub(super) is_by_the_wall: bool,
    /// The poll with the most time to be held against it.
    pub(super) worst: Option<Worst>,
    /// Raw readings of the clock.
    first: Option<u64>,
    last: u64,
}

/// What is known of one poll beside its times.
#[derive(Clone, Debug)]
pub(super) struct Worst {
    /// From 0.
    pub(super) index: usize,
    pub(super) poll: AuditedPoll,
    pub(super) split: Option<Split>,
    pub(super) thread: ThreadInfo,
    finding: Option<Diagnosis>,
    task: Option<tokio::task::Id>,
}

/// A poll that has ended.
pub(super) struct Ended {
    pub(super) times: Times,
    pub(super) yielded: bool,
    pub(super) panicked: bool,
    /// Raw readings of the clock.
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Book {
    pub(super) fn new(
        origin: Origin,
        location: &'static Location<'static>,
        budget: Duration,
    ) -> Self {
        Self {
            origin,
            location,
            budget,
            wake_ups: 0,
            polls: Vec::new(),
            yields: 0,
            has_panicked: false,
            is_by_the_wall: false,
            worst: None,
            first: None,
            last: 0,
        }
    }

    pub(super) fn enter(&mut self, ended: &Ended, seen: Seen) {
        self.first.get_or_insert(ended.start);
        self.last = ended.end;
        self.yields += u64::from(ended.yielded);
        self.has_panicked |= ended.panicked;
        self.is_by_the_wall |= ended.times.own.is_none();
        let poll = judge(ended, &seen);
        if self
            .worst
            .as_ref()
            .is_none_or(|worst| poll.charged > worst.poll.charged)
        {
            self.worst = Some(Worst {
                index: self.polls.len(),
                poll,
                split: split(&ended.times),
                thread: ThreadInfo::current(),
                finding: seen.finding,
                task: tokio::task::try_id(),
            });
        }
        self.polls.push(poll);
    }

    /// From the beginning of the first poll to the end of the last.
    pub(super) fn elapsed(&self) -> Duration {
        let nanos = |first| PLACE.clock.nanos_between(first, self.last);
        Duration::from_nanos(self.first.map_or(0, nanos))
    }

    pub(super) fn count_over(&self, budget: Duration) -> usize {
        self.polls
            .iter()
            .filter(|poll| poll.charged > budget)
            .count()
    }
}

fn judge(ended: &Ended, seen: &Seen) -> AuditedPoll {
    let Times { wall, own } = ended.times;
    let own = match own {
        Some(own) => own.nanos.saturating_sub(suspended(ended, own)),
        None => wall,
    };
    AuditedPoll {
        elapsed: Duration::from_nanos(wall),
        active: Duration::from_nanos(own),
        charged: Duration::from_nanos(own.saturating_sub(seen.allowed)),
    }
}

/// For how much of a poll the whole process was not run. It looks like sleep to the accounts.
fn suspended(ended: &Ended, own: Own) -> u64 {
    if own.nanos - own.cpu < suspension::LEAST {
        return 0;
    }
    // A witness notices it when it wakes up, which may be a little later than this.
    let most = nanos_of(shortest_budget()) + suspension::LEAST;
    for _ in 0..LOOKS {
        if silence_of_both(&PLACE.clock, ended.end) <= most {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    SUSPENSIONS.since(ended.start)
}

const LOOKS: u32 = 50;

fn split(times: &Times) -> Option<Split> {
    let own = times.own?;
    let starved = times.wall - own.nanos;
    Some(Split::from_nanos(own.cpu, own.nanos - own.cpu, starved))
}

impl Book {
    /// The poll that most is held against, as a watchdog would have reported it.
    pub(super) fn worst(&self) -> Option<SlowPoll> {
        let worst = self.worst.as_ref()?;
        let slow = Slow {
            kind: Kind::Audited,
            elapsed: nanos_of(worst.poll.elapsed),
            charged: nanos_of(worst.poll.charged),
            budget: self.budget,
            location: self.location,
            outer: Vec::new(),
            thread: worst.thread.clone(),
            slot: None,
            seq: None,
            counts: true,
            allowed: false,
            broken: None,
        };
        let fault = attribution::kind(worst.split.as_ref());
        let finding = overrun::finding(fault, worst.split, worst.finding.clone());
        let mut report = report::finished(PLACE.watch.counters(), slow, finding);
        report.watch = self.origin.name.into();
        report.task = worst.task;
        Some(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    impl Book {
        /// Of polls that took so many milliseconds: by the wall, and of their own.
        pub(in crate::testing) fn fabricated(polls: &[(u64, u64)]) -> Self {
            let origin = Origin::of_future::<std::future::Ready<()>>();
            let budget = Duration::from_millis(5);
            let mut book = Self::new(origin, Location::caller(), budget);
            for (wall, own) in polls {
                let own = Own {
                    nanos: own * MS,
                    cpu: own * MS,
                };
                book.enter(&ended(wall * MS, Some(own)), Seen::default());
            }
            book
        }
    }

    fn ended(wall: u64, own: Option<Own>) -> Ended {
        Ended {
            times: Times { wall, own },
            yielded: false,
            panicked: false,
            start: 0,
            end: 0,
        }
    }

    #[test]
    fn the_worst_is_the_poll_that_most_own_time_is_held_against() {
        let book = Book::fabricated(&[(90, 3), (8, 8), (50, 8), (20, 7)]);
        let worst = book.worst.as_ref().unwrap();
        assert_eq!((worst.index, book.count_over(book.budget)), (1, 3));
        let report = book.worst().unwrap();
        assert_eq!(report.charged, Duration::from_millis(8));
        assert_eq!(report.cause, crate::Cause::Computing);
    }

    #[test]
    fn what_was_allowed_is_not_held_against_a_poll() {
        let mut book = Book::fabricated(&[]);
        let own = Own {
            nanos: 30 * MS,
            cpu: 28 * MS,
        };
        let seen = Seen {
            allowed: 27 * MS,
            ..Seen::default()
        };
        book.enter(&ended(40 * MS, Some(own)), seen);
        let poll = book.polls[0];
        assert_eq!(poll.active, Duration::from_millis(30));
        assert_eq!(poll.charged, Duration::from_millis(3));
        assert_eq!(book.count_over(Duration::from_millis(3)), 0);
    }

    #[test]
    fn where_the_system_does_not_tell_the_wall_decides() {
        let mut book = Book::fabricated(&[]);
        book.enter(&ended(6 * MS, None), Seen::default());
        assert!(book.is_by_the_wall);
        assert_eq!(book.count_over(Duration::from_millis(5)), 1);
        assert_eq!(book.worst().unwrap().split, None);
    }
}

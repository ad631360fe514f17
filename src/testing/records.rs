//! Records the polls of one audit.

use std::panic::Location;
use std::time::Duration;

use super::origin::Origin;
use super::sentinel_hook::{HOOK, PollFindings};
use super::thread_times::{ActiveTime, ThreadTimes};
use crate::attribution;
use crate::clock::nanos_of;
use crate::dispatch;
use crate::liveness::silence_of_both;
use crate::overrun;
use crate::report::{SectionKind, SlowPoll, ThreadInfo, TimeBreakdown};
use crate::slot::Diagnosis;
use crate::suspension::{self, SUSPENSIONS};
use crate::watch::{Overrun, shortest_budget};

/// Holds the times of one poll of an audited future.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditedPoll {
    /// The wall time of the poll.
    pub elapsed: Duration,
    /// The time in which the thread ran or waited by its own action: without the wait for a processor. It is all of
    /// `elapsed` if the operating system does not tell that wait.
    pub active: Duration,
    /// The time that is held against a budget: `active` without the time under
    /// [`allow_blocking`](crate::allow_blocking).
    pub charged: Duration,
}

/// The record of one audit: the audited future, the place of the call, and the polls in order.
#[derive(Debug)]
pub(super) struct AuditRecord {
    pub(super) origin: Origin,
    pub(super) location: &'static Location<'static>,
    pub(super) budget: Duration,
    pub(super) wake_ups: u64,
    pub(super) polls: Vec<AuditedPoll>,
    pub(super) yields: u64,
    /// Whether a poll panicked. The panic then fails the test, and no budget does.
    pub(super) has_panicked: bool,
    /// Whether only the wall time of some poll is known.
    pub(super) has_wall_time_only: bool,
    /// The poll with the most charged time.
    pub(super) worst: Option<WorstPoll>,
    /// Raw readings of the clock.
    first: Option<u64>,
    last: u64,
}

/// One poll with its diagnosis.
#[derive(Clone, Debug)]
pub(super) struct WorstPoll {
    /// Counted from 0.
    pub(super) index: usize,
    pub(super) poll: AuditedPoll,
    pub(super) split: Option<TimeBreakdown>,
    pub(super) thread: ThreadInfo,
    diagnosis: Option<Diagnosis>,
    task: Option<tokio::task::Id>,
}

/// A poll that has ended.
pub(super) struct TimedPoll {
    pub(super) times: ThreadTimes,
    pub(super) yielded: bool,
    pub(super) panicked: bool,
    /// Raw readings of the clock.
    pub(super) start: u64,
    pub(super) end: u64,
}

impl AuditRecord {
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
            has_wall_time_only: false,
            worst: None,
            first: None,
            last: 0,
        }
    }

    pub(super) fn add(&mut self, ended: &TimedPoll, findings: PollFindings) {
        self.first.get_or_insert(ended.start);
        self.last = ended.end;
        self.yields += u64::from(ended.yielded);
        self.has_panicked |= ended.panicked;
        self.has_wall_time_only |= ended.times.active.is_none();
        let poll = audited_poll(ended, &findings);
        if self
            .worst
            .as_ref()
            .is_none_or(|worst| poll.charged > worst.poll.charged)
        {
            self.worst = Some(WorstPoll {
                index: self.polls.len(),
                poll,
                split: split(&ended.times),
                thread: ThreadInfo::current(),
                diagnosis: findings.diagnosis,
                task: tokio::task::try_id(),
            });
        }
        self.polls.push(poll);
    }

    /// Returns the time from the begin of the first poll to the end of the last.
    pub(super) fn elapsed(&self) -> Duration {
        let nanos = |first| HOOK.clock.nanos_between(first, self.last);
        Duration::from_nanos(self.first.map_or(0, nanos))
    }

    pub(super) fn count_over(&self, budget: Duration) -> usize {
        self.polls
            .iter()
            .filter(|poll| poll.charged > budget)
            .count()
    }
}

fn audited_poll(ended: &TimedPoll, findings: &PollFindings) -> AuditedPoll {
    let ThreadTimes { wall, active } = ended.times;
    let active = match active {
        Some(active) => active.nanos.saturating_sub(suspended_nanos(ended, active)),
        None => wall,
    };
    AuditedPoll {
        elapsed: Duration::from_nanos(wall),
        active: Duration::from_nanos(active),
        charged: Duration::from_nanos(active.saturating_sub(findings.allowed)),
    }
}

/// Returns how long the process was suspended during a poll. The CPU samples show that time as sleep.
fn suspended_nanos(ended: &TimedPoll, active: ActiveTime) -> u64 {
    if active.nanos - active.cpu < suspension::MIN_NANOS {
        return 0;
    }
    // The sentinel or the ticker detects a suspension when it wakes up, which may come a little later.
    let most = nanos_of(shortest_budget()) + suspension::MIN_NANOS;
    for _ in 0..MAX_CHECKS {
        if silence_of_both(&HOOK.clock, ended.end) <= most {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    SUSPENSIONS.since(ended.start)
}

/// Checks of a millisecond each: the sentinel and the ticker wake up within it unless they are held up.
const MAX_CHECKS: u32 = 50;

fn split(times: &ThreadTimes) -> Option<TimeBreakdown> {
    let active = times.active?;
    let starved = times.wall - active.nanos;
    let blocked = active.nanos - active.cpu;
    Some(TimeBreakdown::from_nanos(active.cpu, blocked, starved))
}

impl AuditRecord {
    /// Returns the poll with the most charged time, as a watchdog would report it.
    pub(super) fn worst(&self) -> Option<SlowPoll> {
        let worst = self.worst.as_ref()?;
        let overrun = Overrun {
            kind: SectionKind::Audited,
            elapsed_nanos: nanos_of(worst.poll.elapsed),
            charged_nanos: nanos_of(worst.poll.charged),
            budget: self.budget,
            location: self.location,
            outer_watches: Vec::new(),
            thread: worst.thread.clone(),
            slot: None,
            seq: None,
            is_slow: true,
            is_allowed: false,
            exceeded_allowance: None,
        };
        let attribution = attribution::dominant(worst.split.as_ref());
        let diagnosis = overrun::diagnosis(attribution, worst.split, worst.diagnosis.clone());
        let mut report = dispatch::finished_report(HOOK.watch.counters(), overrun, diagnosis);
        report.watch = self.origin.name.into();
        report.task = worst.task;
        Some(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    impl AuditRecord {
        /// Makes a record of polls, each with its wall time and active time in milliseconds.
        pub(in crate::testing) fn fabricated(polls: &[(u64, u64)]) -> Self {
            let origin = Origin::of_future::<std::future::Ready<()>>();
            let budget = Duration::from_millis(5);
            let mut record = Self::new(origin, Location::caller(), budget);
            for (wall, active) in polls {
                let active = ActiveTime {
                    nanos: active * MS,
                    cpu: active * MS,
                };
                record.add(&ended(wall * MS, Some(active)), PollFindings::default());
            }
            record
        }
    }

    fn ended(wall: u64, active: Option<ActiveTime>) -> TimedPoll {
        TimedPoll {
            times: ThreadTimes { wall, active },
            yielded: false,
            panicked: false,
            start: 0,
            end: 0,
        }
    }

    #[test]
    fn worst_is_the_first_poll_with_the_most_charged_time() {
        let record = AuditRecord::fabricated(&[(90, 3), (8, 8), (50, 8), (20, 7)]);
        let worst = record.worst.as_ref().unwrap();
        assert_eq!((worst.index, record.count_over(record.budget)), (1, 3));
        let report = record.worst().unwrap();
        assert_eq!(report.charged, Duration::from_millis(8));
        assert_eq!(report.cause, crate::Cause::Computing);
    }

    #[test]
    fn charged_leaves_out_allowed_time() {
        let mut record = AuditRecord::fabricated(&[]);
        let active = ActiveTime {
            nanos: 30 * MS,
            cpu: 28 * MS,
        };
        let findings = PollFindings {
            allowed: 27 * MS,
            ..PollFindings::default()
        };
        record.add(&ended(40 * MS, Some(active)), findings);
        let poll = record.polls[0];
        assert_eq!(poll.active, Duration::from_millis(30));
        assert_eq!(poll.charged, Duration::from_millis(3));
        assert_eq!(record.count_over(Duration::from_millis(3)), 0);
    }

    #[test]
    fn charged_without_cpu_samples_is_the_wall_time() {
        let mut record = AuditRecord::fabricated(&[]);
        record.add(&ended(6 * MS, None), PollFindings::default());
        assert!(record.has_wall_time_only);
        assert_eq!(record.count_over(Duration::from_millis(5)), 1);
        assert_eq!(record.worst().unwrap().split, None);
    }
}

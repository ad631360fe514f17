//! Whether anything is stuck at this moment.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use super::{WatchdogInner, poll_statuses};
use crate::clock::Clock;
use crate::liveness::SENTINEL;

/// Whether polls of a watchdog are stuck at this moment. Made by
/// [`Watchdog::health`](crate::Watchdog::health).
///
/// `Display` says it in a few words, for the body of a health check.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// In one word.
    pub status: Status,
    /// How many polls are over their budget and still run. What is excused is none of them: time that
    /// [`allow_blocking`](crate::allow_blocking) declared, a poll whose worker was handed to another thread, and
    /// time in which the system did not run the thread.
    pub stalls: u64,
    /// How many workers of runtimes that this watchdog guards are stuck in one poll. A watched poll that holds
    /// one is among the [`stalls`](Self::stalls) as well.
    pub stuck_workers: u64,
    /// How many of those workers are busy for very long without a proof that it is one poll
    /// ([`StuckKind::Busy`](crate::report::StuckKind::Busy)). They do not change the [`status`](Self::status).
    pub busy_workers: u64,
    /// For how long the oldest stall or stuck worker has lasted, less what is excused.
    pub oldest_stall: Option<Duration>,
    /// For how long the watchdog's own thread has not looked, where that is too long: more than a second
    /// past the look that was due. Polls are known nevertheless, because they are read here; a worker that
    /// became stuck since then is not.
    pub unseen: Option<Duration>,
}

/// How many nanoseconds a look may be late before `health` says so. More than a busy host delays a thread
/// that sleeps most of the time, and no more than the interval of the most eager health check.
const LATE_LOOK: u64 = 1_000_000_000;

/// The word of a [`Health`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// No poll in flight is over its budget, and no worker is stuck.
    Responsive,
    /// At least one is.
    Stalled,
    /// None is known to be, but the watchdog's own thread has not looked for too long
    /// ([`Health::unseen`]): of workers nothing is known.
    Unknown,
}

impl Health {
    pub(crate) fn of(watchdog: &WatchdogInner) -> Self {
        let counters = watchdog.registry.counters();
        let own: HashSet<u64> = counters.iter().map(|counters| counters.id).collect();
        let in_flight = poll_statuses(&watchdog.clock);
        let of_home = in_flight
            .iter()
            .filter(|flight| own.contains(&flight.watch));
        let stalls = of_home.filter_map(|flight| flight.stalled_nanos);
        let (stuck_workers, longest_stuck) = watchdog
            .stuck_workers
            .count_and_oldest_nanos(&watchdog.clock);
        let (busy_workers, _) = watchdog
            .busy_workers
            .count_and_oldest_nanos(&watchdog.clock);
        let oldest = stalls.clone().chain(longest_stuck).max();
        let unseen = unseen(&watchdog.clock, &in_flight);
        Self {
            status: match (oldest, unseen) {
                (Some(_), _) => Status::Stalled,
                (None, Some(_)) => Status::Unknown,
                (None, None) => Status::Responsive,
            },
            stalls: stalls.count() as u64,
            stuck_workers,
            busy_workers,
            oldest_stall: oldest.map(Duration::from_nanos),
            unseen: unseen.map(Duration::from_nanos),
        }
    }
}

/// For how long the sentinel has not looked, if its look is overdue by too long. Under a mocked clock it does
/// not look.
fn unseen(clock: &Clock, in_flight: &[super::PollStatus]) -> Option<u64> {
    let now = clock.raw();
    let is_started = clock.is_real() && SENTINEL.sign() > 0;
    let silence = clock.nanos_between(SENTINEL.sign(), now);
    let (silence, overdue) = match SENTINEL.has_no_timer() {
        // It sleeps while nothing is in flight, and is roused by the first poll.
        true => {
            let oldest = in_flight.iter().map(|flight| flight.elapsed_nanos).max()?;
            (oldest.min(silence), oldest.min(silence))
        }
        false => (silence, SENTINEL.overdue(clock, now)),
    };
    (is_started && overdue > LATE_LOOK).then_some(silence)
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.oldest_stall, self.unseen) {
            (None, None) => {
                f.write_str("responsive")?;
                match self.busy_workers {
                    0 => Ok(()),
                    1 => f.write_str(", 1 worker busy"),
                    several => write!(f, ", {several} workers busy"),
                }
            }
            (None, Some(unseen)) => {
                write!(f, "unknown, the watchdog has not looked for {unseen:.1?}")
            }
            (Some(oldest), _) => {
                write!(f, "{} stalled", self.stalls)?;
                match self.stuck_workers {
                    0 => {}
                    1 => f.write_str(", 1 worker stuck")?,
                    several => write!(f, ", {several} workers stuck")?,
                }
                write!(f, ", the oldest for {oldest:.1?}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_workers_are_named_without_a_verdict() {
        let health = |busy_workers| Health {
            status: Status::Responsive,
            stalls: 0,
            stuck_workers: 0,
            busy_workers,
            oldest_stall: None,
            unseen: None,
        };
        assert_eq!(health(1).to_string(), "responsive, 1 worker busy");
        assert_eq!(health(2).to_string(), "responsive, 2 workers busy");
    }

    #[test]
    fn it_says_in_a_few_words_what_is_stuck() {
        let health = |stalls, stuck_workers, oldest_stall| Health {
            status: Status::Stalled,
            stalls,
            stuck_workers,
            busy_workers: 0,
            oldest_stall,
            unseen: None,
        };
        let said = |stalls, stuck_workers, oldest_stall| {
            health(stalls, stuck_workers, oldest_stall).to_string()
        };
        let oldest = Some(Duration::from_millis(1_500));
        assert_eq!(said(0, 0, None), "responsive");
        assert_eq!(said(2, 0, oldest), "2 stalled, the oldest for 1.5s");
        let one = "1 stalled, 1 worker stuck, the oldest for 1.5s";
        assert_eq!(said(1, 1, oldest), one);
        let several = "1 stalled, 2 workers stuck, the oldest for 1.5s";
        assert_eq!(said(1, 2, oldest), several);
        let unknown = Health {
            unseen: Some(Duration::from_secs(3)),
            ..health(0, 0, None)
        };
        let words = "unknown, the watchdog has not looked for 3.0s";
        assert_eq!(unknown.to_string(), words);
    }
}

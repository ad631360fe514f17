//! The health of a watchdog: its stalled polls and stuck workers now.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use super::{WatchdogInner, poll_statuses};
use crate::clock::Clock;
use crate::liveness::SENTINEL;

/// Counts the stalled polls and stuck workers of a watchdog at one time. [`Watchdog::health`](crate::Watchdog::health)
/// makes it.
///
/// `Display` writes one short line, for the body of a health check.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// The summary.
    pub status: Status,
    /// The number of polls that still run over their budget.
    ///
    /// Excused time does not count: time that [`allow_blocking`](crate::allow_blocking) declared, polls whose worker
    /// another thread has taken, and time in which the system did not run the thread.
    pub stalls: u64,
    /// The number of workers, of guarded runtimes, that are stuck in one poll. A watched poll that holds one is among the
    /// [`stalls`](Self::stalls) too.
    pub stuck_workers: u64,
    /// The number of such workers that have been busy for ten budgets, without proof of one poll
    /// ([`StuckKind::Busy`](crate::report::StuckKind::Busy)). They do not change the [`status`](Self::status).
    pub busy_workers: u64,
    /// The age of the oldest stall or stuck worker, without excused time.
    pub oldest_stall: Option<Duration>,
    /// The time since the sentinel's last scan, if its next scan is more than a second overdue.
    ///
    /// Polls are read here, so they are known even then. A worker that became stuck since that scan is not.
    pub unseen: Option<Duration>,
}

/// A scan that is overdue by more makes the health unknown. A busy host delays a sleeping thread by less, and health checks
/// are rarely more frequent.
const MAX_OVERDUE_NANOS: u64 = 1_000_000_000;

/// Summarizes a [`Health`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// No poll in flight is over its budget, and no worker is stuck.
    Responsive,
    /// A poll in flight is over its budget, or a worker is stuck.
    Stalled,
    /// Neither is known, but the sentinel's scan is overdue ([`Health::unseen`]), so the state of workers is unknown.
    Unknown,
}

impl Health {
    pub(crate) fn of(watchdog: &WatchdogInner) -> Self {
        let counters = watchdog.registry.counters();
        let watches: HashSet<u64> = counters.iter().map(|counters| counters.id).collect();
        let in_flight = poll_statuses(&watchdog.clock);
        let of_watchdog = in_flight
            .iter()
            .filter(|poll| watches.contains(&poll.watch));
        let stalls = of_watchdog.filter_map(|poll| poll.stalled_nanos);
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

/// Returns the nanoseconds since the sentinel's last scan, if its next one is overdue. Under a mocked clock the sentinel
/// makes none.
fn unseen(clock: &Clock, in_flight: &[super::PollStatus]) -> Option<u64> {
    let now = clock.raw();
    let is_started = clock.is_real() && SENTINEL.sign() > 0;
    let silence = clock.nanos_between(SENTINEL.sign(), now);
    let (silence, overdue) = match SENTINEL.has_no_timer() {
        // The sentinel sleeps while nothing is in flight, and the first poll wakes it.
        true => {
            let oldest = in_flight.iter().map(|poll| poll.elapsed_nanos).max()?;
            (oldest.min(silence), oldest.min(silence))
        }
        false => (silence, SENTINEL.overdue(clock, now)),
    };
    (is_started && overdue > MAX_OVERDUE_NANOS).then_some(silence)
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
                write!(f, "unknown, the sentinel has made no scan for {unseen:.1?}")
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
    fn display_of_busy_workers_stays_responsive() {
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
    fn display_counts_stalls_and_stuck_workers() {
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
        let words = "unknown, the sentinel has made no scan for 3.0s";
        assert_eq!(unknown.to_string(), words);
    }
}

//! Whether anything is stuck at this moment.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use super::{Home, flights};

/// Whether polls of a watchdog are stuck at this moment. Made by
/// [`Watchdog::health`](crate::Watchdog::health).
///
/// `Display` says it in a few words, for the body of a health check.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// In one word.
    pub status: Status,
    /// How many polls are over their budget and still run.
    pub stalls: u64,
    /// How many workers of runtimes that this watchdog guards make no progress. Where a watched poll
    /// is what holds one, it is among the [`stalls`](Self::stalls) as well.
    pub stuck_workers: u64,
    /// For how long the oldest of all those has been stuck.
    pub oldest_stall: Option<Duration>,
}

/// The word of a [`Health`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// No poll in flight is over its budget, and no worker is stuck.
    Responsive,
    /// At least one is.
    Stalled,
}

impl Health {
    pub(crate) fn of(home: &Home) -> Self {
        let cores = home.ledger.cores();
        let own: HashSet<u64> = cores.iter().map(|core| core.id).collect();
        let is_stall = |flight: &super::Flight| flight.stalled && own.contains(&flight.watch);
        let in_flight = flights(&home.clock);
        let stalls = in_flight.iter().filter(|flight| is_stall(flight));
        let (stuck_workers, longest_stuck) = home.stuck_workers.now(&home.clock);
        let ages = stalls.clone().map(|flight| flight.elapsed);
        let oldest = ages.chain(longest_stuck).max();
        Self {
            status: match oldest {
                None => Status::Responsive,
                Some(_) => Status::Stalled,
            },
            stalls: stalls.count() as u64,
            stuck_workers,
            oldest_stall: oldest.map(Duration::from_nanos),
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.oldest_stall {
            None => f.write_str("responsive"),
            Some(oldest) => {
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
    fn it_says_in_a_few_words_what_is_stuck() {
        let said = |stalls, stuck_workers, oldest_stall| {
            let health = Health {
                status: Status::Stalled,
                stalls,
                stuck_workers,
                oldest_stall,
            };
            health.to_string()
        };
        let oldest = Some(Duration::from_millis(1_500));
        assert_eq!(said(0, 0, None), "responsive");
        assert_eq!(said(2, 0, oldest), "2 stalled, the oldest for 1.5s");
        let one = "1 stalled, 1 worker stuck, the oldest for 1.5s";
        assert_eq!(said(1, 1, oldest), one);
        let several = "1 stalled, 2 workers stuck, the oldest for 1.5s";
        assert_eq!(said(1, 2, oldest), several);
    }
}

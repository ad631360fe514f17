//! Every ledger of the process, added up by name.
//!
//! Two watchdogs of one process may have watches of one name, and a text for Prometheus must hold
//! no series twice; so what is published is the sum. And a watchdog may end while its counters
//! must not go back: what it counted is kept here.

use std::collections::BTreeMap;
use std::sync::atomic::{Ordering::Acquire, fence};
use std::sync::{Arc, LazyLock};

use super::ledger::OTHER;
use super::{Flight, Ledger, Tally, Totals, flights};
use crate::clock::Clock;
use crate::samples::Series;
use crate::sync::Lock;

/// How many names are remembered of watchdogs that ended; beyond it they are added to [`OTHER`].
const REMEMBERED: usize = 1_000;

#[derive(Default)]
struct Roster {
    ledgers: Vec<Arc<Ledger>>,
    ended: Ended,
}

/// What watchdogs counted that are no more.
#[derive(Default)]
struct Ended {
    watches: BTreeMap<Arc<str>, EndedWatch>,
    tally: Tally,
}

struct EndedWatch {
    totals: Totals,
    slow_durations: Arc<Series>,
}

/// The sums of one watch name.
#[derive(Default)]
pub(crate) struct WatchSums {
    pub(crate) totals: Totals,
    pub(crate) in_flight: u64,
    pub(crate) stalls: u64,
    /// The hand-overs of single slow polls, one for each watch of this name.
    pub(crate) slow_durations: Vec<Arc<Series>>,
}

/// Everything that is published, read at one moment.
#[derive(Default)]
pub(crate) struct Sums {
    pub(crate) watches: BTreeMap<Arc<str>, WatchSums>,
    /// Nanoseconds; 0 if nothing is stuck.
    pub(crate) oldest_stall: u64,
    pub(crate) tally: Tally,
}

static ROSTER: Lock<Option<Roster>> = Lock::new(None);

fn with_roster<T>(f: impl FnOnce(&mut Roster) -> T) -> T {
    // Nothing panics while it holds this lock; if it ever did, the lists would still be whole.
    let mut roster = ROSTER.lock();
    f(roster.get_or_insert_default())
}

pub(crate) fn enroll(ledger: &Arc<Ledger>) {
    with_roster(|roster| roster.ledgers.push(Arc::clone(ledger)));
}

/// Adds everything up.
pub(crate) fn collect() -> Sums {
    static CLOCK: LazyLock<Clock> = LazyLock::new(Clock::new);
    let in_flight = flights(&CLOCK);
    let oldest_stall = in_flight.iter().filter_map(|poll| poll.stalled).max();
    with_roster(|roster| {
        // Nobody but the roster holds an ended ledger, so nobody writes to it any more; and it is
        // taken over under the lock under which everything is added up, so no sum misses it.
        let is_live = |ledger: &Arc<Ledger>| Arc::strong_count(ledger) > 1;
        let (live, ended): (Vec<_>, Vec<_>) = roster.ledgers.drain(..).partition(is_live);
        // Pairs with the release with which the last other holder let go: its counts are seen.
        fence(Acquire);
        let mut sums = roster.ended.sums();
        sums.oldest_stall = oldest_stall.unwrap_or_default();
        for ledger in live.iter().chain(&ended) {
            sums.add(ledger, &in_flight);
        }
        for ledger in ended {
            roster.ended.take_over(&ledger);
        }
        roster.ledgers = live;
        sums
    })
}

impl Sums {
    fn add(&mut self, ledger: &Ledger, in_flight: &[Flight]) {
        self.tally.add(&ledger.tally);
        for core in ledger.cores() {
            let watch = self.watches.entry(Arc::clone(&core.name)).or_default();
            watch.totals.add(&core.totals());
            let mine = in_flight.iter().filter(|poll| poll.watch == core.id);
            watch.in_flight += mine.clone().count() as u64;
            watch.stalls += mine.filter(|poll| poll.stalled.is_some()).count() as u64;
            watch.slow_durations.push(Arc::clone(&core.slow_durations));
        }
    }
}

impl Ended {
    fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        sums.tally.add(&self.tally);
        for (name, ended) in &self.watches {
            let watch = sums.watches.entry(Arc::clone(name)).or_default();
            watch.totals.add(&ended.totals);
            watch.slow_durations.push(Arc::clone(&ended.slow_durations));
        }
        sums
    }

    fn take_over(&mut self, ledger: &Ledger) {
        self.tally.add(&ledger.tally);
        for core in ledger.cores() {
            let room = self.watches.len() < REMEMBERED;
            let known = room || self.watches.contains_key(&core.name);
            let name = if known {
                Arc::clone(&core.name)
            } else {
                OTHER.into()
            };
            let ended = self
                .watches
                .entry(name)
                .or_insert_with_key(|name| EndedWatch {
                    totals: Totals::default(),
                    slow_durations: core.slow_durations.empty(name),
                });
            ended.totals.add(&core.totals());
            ended
                .slow_durations
                .leave(core.slow_durations.take_left_over());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::Counted;

    fn polls(name: &str) -> Option<u64> {
        let sums = collect();
        let watch = sums.watches.get(name)?;
        Some(watch.totals.distribution.count())
    }

    fn ledger_with_polls(name: &'static str, polls: u64) -> Arc<Ledger> {
        let ledger = Ledger::new(10);
        enroll(&ledger);
        count(&ledger, name, polls);
        ledger
    }

    fn count(ledger: &Ledger, name: &'static str, polls: u64) {
        let core = ledger.get_or_register(name.into()).core;
        for _ in 0..polls {
            let poll = Counted {
                is_poll: true,
                ..Counted::default()
            };
            core.count_rarely(None, poll);
        }
    }

    #[test]
    fn watches_of_one_name_are_added_up_and_outlive_their_watchdog() {
        let name = "roster: two watchdogs";
        let first = ledger_with_polls(name, 3);
        let second = ledger_with_polls(name, 4);
        assert_eq!(polls(name), Some(7));
        drop(first);
        assert_eq!(polls(name), Some(7));
        drop(second);
        assert_eq!(polls(name), Some(7));
        let _third = ledger_with_polls(name, 1);
        assert_eq!(polls(name), Some(8));
    }

    #[test]
    fn a_ledger_is_let_go_of_when_its_watchdog_has_ended_and_not_before() {
        let name = "roster: lets go";
        let ledger = ledger_with_polls(name, 3);
        assert_eq!(polls(name), Some(3));
        count(&ledger, name, 1);
        assert_eq!(polls(name), Some(4));
        let ended = Arc::downgrade(&ledger);
        drop(ledger);
        // Another test may be adding up at this moment, and let go of it a moment later.
        while ended.upgrade().is_some() {
            assert_eq!(polls(name), Some(4));
        }
        assert_eq!(polls(name), Some(4));
    }

    #[test]
    fn past_so_many_names_of_ended_watchdogs_they_share_one() {
        let ledger = Ledger::new(2 * REMEMBERED);
        for number in 0..REMEMBERED + 5 {
            ledger.get_or_register(format!("{number}").into());
        }
        let mut ended = Ended::default();
        ended.take_over(&ledger);
        assert_eq!(ended.watches.len(), REMEMBERED + 1);
        assert!(ended.watches.contains_key(OTHER));
    }

    #[test]
    fn what_is_in_flight_is_counted_where_it_belongs() {
        let name = "roster: in flight";
        let builder = crate::Watchdog::builder().without_tracing();
        let watchdog = builder.build().unwrap();
        let watch = watchdog.watch(name);
        let slow = watch.with_budget(std::time::Duration::ZERO);
        let now = || {
            let watch = &collect().watches[name];
            (watch.in_flight, watch.stalls)
        };
        assert_eq!(now(), (0, 0));
        let day = watch.with_budget(std::time::Duration::from_secs(86_400));
        let _outer = day.enter();
        let _middle = day.enter();
        assert_eq!(now(), (2, 0));
        let _inner = slow.enter();
        assert_eq!(now(), (3, 1));
    }
}

//! Sums the registries of all watchdogs of the process, by watch name.
//!
//! Two watchdogs of one process may have watches of one name, and a text for Prometheus must not hold a series
//! twice. So the crate publishes the sum. A watchdog may end, but a counter must not go back. So this module
//! keeps the counts of ended watchdogs.

use std::collections::BTreeMap;
use std::sync::atomic::{Ordering::Acquire, fence};
use std::sync::{Arc, LazyLock};

use super::registry::OTHER;
use super::{PollStatus, Registry, Totals, Unreported, poll_statuses};
use crate::clock::Clock;
use crate::pending_durations::Series;
use crate::sync::Lock;

/// Names kept of ended watchdogs: the default limit of one watchdog. Counts of further names go to [`OTHER`].
const ENDED_NAMES: usize = 1_000;

#[derive(Default)]
struct Registries {
    live: Vec<Arc<Registry>>,
    ended: EndedWatchdogs,
}

/// The counts of watchdogs that have ended.
#[derive(Default)]
struct EndedWatchdogs {
    /// Each with one series of durations.
    watches: BTreeMap<Arc<str>, WatchSums>,
    unreported: Unreported,
}

/// Sums the watches of one name.
#[derive(Default)]
pub(crate) struct WatchSums {
    pub(crate) totals: Totals,
    pub(crate) in_flight: u64,
    pub(crate) stalls: u64,
    /// The pending durations of slow polls, one series for each watch of this name.
    pub(crate) slow_durations: Vec<Arc<Series>>,
}

/// Sums all watchdogs of the process, read at one moment.
#[derive(Default)]
pub(crate) struct Aggregate {
    pub(crate) watches: BTreeMap<Arc<str>, WatchSums>,
    /// 0 if no poll is stalled.
    pub(crate) oldest_stall_nanos: u64,
    pub(crate) unreported: Unreported,
}

static REGISTRIES: Lock<Option<Registries>> = Lock::new(None);

fn with_registries<T>(f: impl FnOnce(&mut Registries) -> T) -> T {
    let mut registries = REGISTRIES.lock();
    f(registries.get_or_insert_default())
}

/// Adds a watchdog's registry to the aggregate.
pub(crate) fn register(registry: &Arc<Registry>) {
    with_registries(|registries| registries.live.push(Arc::clone(registry)));
}

/// Sums all watchdogs of the process, ended ones included.
pub(crate) fn aggregate() -> Aggregate {
    static CLOCK: LazyLock<Clock> = LazyLock::new(Clock::new);
    let in_flight = poll_statuses(&CLOCK);
    let oldest_stall_nanos = in_flight.iter().filter_map(|poll| poll.stalled_nanos).max();
    with_registries(|registries| {
        // Only this list refers to the registry of an ended watchdog, so no thread writes to it. This
        // function moves its counts under the lock that also covers the sum, so no sum misses them.
        let is_live = |registry: &Arc<Registry>| Arc::strong_count(registry) > 1;
        let (live, ended): (Vec<_>, Vec<_>) = registries.live.drain(..).partition(is_live);
        // Pairs with the release by which the last other holder dropped its reference: makes its counts visible.
        fence(Acquire);
        let mut sums = registries.ended.sums();
        sums.oldest_stall_nanos = oldest_stall_nanos.unwrap_or_default();
        for registry in live.iter().chain(&ended) {
            sums.add(registry, &in_flight);
        }
        for registry in ended {
            registries.ended.absorb(&registry);
        }
        registries.live = live;
        sums
    })
}

impl Aggregate {
    fn add(&mut self, registry: &Registry, in_flight: &[PollStatus]) {
        self.unreported.add(&registry.unreported);
        for counters in registry.counters() {
            let watch = self.watches.entry(Arc::clone(&counters.name)).or_default();
            watch.totals.add(&counters.totals());
            let of_watch = in_flight.iter().filter(|poll| poll.watch == counters.id);
            watch.in_flight += of_watch.clone().count() as u64;
            watch.stalls += of_watch.filter(|poll| poll.stalled_nanos.is_some()).count() as u64;
            watch
                .slow_durations
                .push(Arc::clone(&counters.slow_durations));
        }
    }
}

impl EndedWatchdogs {
    fn sums(&self) -> Aggregate {
        let mut sums = Aggregate::default();
        sums.unreported.add(&self.unreported);
        for (name, ended) in &self.watches {
            let watch = sums.watches.entry(Arc::clone(name)).or_default();
            watch.totals.add(&ended.totals);
            watch
                .slow_durations
                .extend(ended.slow_durations.iter().cloned());
        }
        sums
    }

    fn absorb(&mut self, registry: &Registry) {
        self.unreported.add(&registry.unreported);
        for counters in registry.counters() {
            let has_room = self.watches.len() < ENDED_NAMES;
            let name = if has_room || self.watches.contains_key(&counters.name) {
                Arc::clone(&counters.name)
            } else {
                OTHER.into()
            };
            let ended = self.watches.entry(Arc::clone(&name)).or_default();
            ended.totals.add(&counters.totals());
            if ended.slow_durations.is_empty() {
                ended
                    .slow_durations
                    .push(counters.slow_durations.empty(&name));
            }
            let overflow = counters.slow_durations.take_overflow();
            ended.slow_durations[0].add_overflow(overflow);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::Counted;

    fn polls(name: &str) -> Option<u64> {
        let sums = aggregate();
        let watch = sums.watches.get(name)?;
        Some(watch.totals.distribution.count())
    }

    fn registry_with_polls(name: &'static str, polls: u64) -> Arc<Registry> {
        let registry = Registry::new(10);
        register(&registry);
        count(&registry, name, polls);
        registry
    }

    fn count(registry: &Registry, name: &'static str, polls: u64) {
        let counters = registry.get_or_register(name.into()).counters;
        for _ in 0..polls {
            let poll = Counted {
                is_poll: true,
                ..Counted::default()
            };
            counters.count_rarely(None, poll);
        }
    }

    #[test]
    fn aggregate_of_watches_with_one_name_sums_them_and_keeps_ended_ones() {
        let name = "aggregate: two watchdogs";
        let first = registry_with_polls(name, 3);
        let second = registry_with_polls(name, 4);
        assert_eq!(polls(name), Some(7));
        drop(first);
        assert_eq!(polls(name), Some(7));
        drop(second);
        assert_eq!(polls(name), Some(7));
        let _third = registry_with_polls(name, 1);
        assert_eq!(polls(name), Some(8));
    }

    #[test]
    fn aggregate_drops_a_registry_after_its_watchdog_ended_and_not_before() {
        let name = "aggregate: drops";
        let registry = registry_with_polls(name, 3);
        assert_eq!(polls(name), Some(3));
        count(&registry, name, 1);
        assert_eq!(polls(name), Some(4));
        let ended = Arc::downgrade(&registry);
        drop(registry);
        // Another test may hold a reference while it sums at this moment.
        while ended.upgrade().is_some() {
            assert_eq!(polls(name), Some(4));
        }
        assert_eq!(polls(name), Some(4));
    }

    #[test]
    fn absorb_past_the_limit_of_names_counts_under_other() {
        let registry = Registry::new(2 * ENDED_NAMES);
        for number in 0..ENDED_NAMES + 5 {
            registry.get_or_register(format!("{number}").into());
        }
        let mut ended = EndedWatchdogs::default();
        ended.absorb(&registry);
        assert_eq!(ended.watches.len(), ENDED_NAMES + 1);
        assert!(ended.watches.contains_key(OTHER));
    }

    #[test]
    fn aggregate_of_polls_in_flight_counts_stalls_apart() {
        let name = "aggregate: in flight";
        let builder = crate::Watchdog::builder().without_tracing();
        let watchdog = builder.build().unwrap();
        let watch = watchdog.watch(name);
        let slow = watch.with_budget(std::time::Duration::ZERO);
        let now = || {
            let watch = &aggregate().watches[name];
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

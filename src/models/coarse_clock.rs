//! The ticker against a poll that begins at a tick.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use loom::thread;

use super::Model;
use crate::coarse_clock::{CoarseClock, KEPT_TICKS};
use crate::sync::fault::Fault::Relaxed;

const NOT_YET: u64 = 0;

/// A clock that all threads read in one order. It synchronizes them, which the machine's clock does not: the model is of
/// the record of ticks.
struct ModelClock(loom::sync::atomic::AtomicU64);

impl ModelClock {
    fn read(&self) -> u64 {
        self.0.fetch_add(1, Ordering::AcqRel)
    }

    /// Reads the clock at every call.
    fn in_time(&self) -> impl Fn() -> u64 {
        || self.read()
    }

    /// Reads the clock twice at the first call, and returns the second reading at the second call.
    fn too_early(&self) -> impl Fn() -> u64 {
        let second = Cell::new(None);
        move || {
            second.take().unwrap_or_else(|| {
                let first = self.read();
                second.set(Some(self.read()));
                first
            })
        }
    }
}

/// A poll begins and ends while this number of ticks comes.
fn poll_during(ticks: usize, reads_in_time: bool) -> Model {
    Model::new(move || {
        let shared = Arc::new((
            CoarseClock::new(),
            ModelClock(loom::sync::atomic::AtomicU64::new(100)),
        ));
        // Each tick, for the assertions.
        let published = Arc::new([const { AtomicU64::new(NOT_YET) }; 8]);
        let ticker = {
            let (shared, published) = (Arc::clone(&shared), Arc::clone(&published));
            thread::spawn(move || {
                let (coarse, clock) = &*shared;
                for tick in &published[..ticks] {
                    let (in_time, too_early) = (clock.in_time(), clock.too_early());
                    coarse.publish(|| {
                        let now = match reads_in_time {
                            true => in_time(),
                            false => too_early(),
                        };
                        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
                        let _ = tick.compare_exchange(NOT_YET, now, success, failure);
                        now
                    });
                }
            })
        };
        let (coarse, clock) = &*shared;
        let before = clock.read();
        if let Some(tick) = coarse.latest() {
            // The ticker noted the tick before a poll could load it.
            let published = published.iter().map(|tick| tick.load(Ordering::Relaxed));
            let published: Vec<_> = published.collect();
            let replaced = coarse.replaced(tick);
            let later = published.iter().filter(|other| **other > tick).count();
            let is_forgotten = replaced == Some(tick) && later + 1 >= KEPT_TICKS;
            let is_after = replaced.is_none_or(|replaced| replaced > before);
            assert!(published.contains(&tick), "{tick} is no tick");
            assert!(
                is_after || is_forgotten,
                "{replaced:?} is too early: the poll began after {before}"
            );
        }
        ticker.join().unwrap();
    })
}

/// A poll that loaded a tick began before the moment at which the tick was replaced. If too many ticks came since, the
/// clock says that it has forgotten the moment.
#[test]
fn tick_that_is_replaced_was_loaded_by_then() {
    poll_during(2, true)
        .preemptions(3)
        .holds()
        .fails_with(Relaxed, "tick-remember", "too early")
        .fails_with(Relaxed, "tick-recall", "too early");
}

#[test]
fn tick_that_is_forgotten_while_it_is_looked_up_is_not_mistaken() {
    poll_during(5, true).holds();
}

#[test]
fn replacement_that_is_read_before_it_is_published_is_too_early() {
    poll_during(2, false).preemptions(3).fails("too early");
    poll_during(5, false).fails("too early");
}

//! Which polls go by ticks, and what is counted of them.

use super::*;
use crate::slot;
use crate::{Timing, WatchExt as _};

fn watch(timing: Timing) -> Watch {
    let builder = Watchdog::builder().without_tracing().budget(100 * MS);
    builder.timing(timing).build().unwrap().watch("w")
}

/// Whether one poll goes by ticks, asked from within.
fn goes_by_ticks(watch: &Watch) -> bool {
    run(async { slot::current().is_some_and(slot::Slot::is_ticked) }.watched(watch))
}

#[test]
fn polls_go_by_ticks_where_they_are_told_to() {
    let watch = watch(Timing::Ticked);
    let start = std::time::Instant::now();
    let mut polls = 1;
    // The first ones are timed, and so are all until the sentinel ticks.
    while !goes_by_ticks(&watch) {
        polls += 1;
        assert!(start.elapsed() < PATIENCE, "nobody ticks");
    }
    assert_eq!((watch.stats().polls, watch.stats().in_flight), (polls, 0));
}

#[test]
fn polls_are_timed_where_they_are_told_to() {
    let ticked = watch(Timing::Ticked);
    let exact = watch(Timing::Exact);
    // There are ticks to go by.
    while !goes_by_ticks(&ticked) {}
    assert!((0..1_000).all(|_| !goes_by_ticks(&exact)));
}

/// Whether a poll of this thread stands for others of its watch.
fn has_sample(watch: &Watch) -> bool {
    let cells = slot::current().and_then(|slot| watch.counters().cells(slot));
    cells.is_some_and(|cells| cells.sampled().is_some())
}

#[test]
fn only_polls_that_go_by_ticks_stand_for_others() {
    let (ticked, exact) = (watch(Timing::Ticked), watch(Timing::Exact));
    run(async {}.watched(&exact));
    assert_eq!((exact.stats().polls, has_sample(&exact)), (1, false));
    // Neither guards nor destructors do.
    drop(ticked.enter());
    drop(async {}.watched(&ticked));
    assert_eq!((ticked.stats().polls, has_sample(&ticked)), (1, false));
    // One that a tick came in the middle of does not.
    while !has_sample(&ticked) {
        run(async {}.watched(&ticked));
    }
}

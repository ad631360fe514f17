//! Which polls are ticked, and how they are counted.

use super::*;
use crate::slot;
use crate::{Timing, WatchExt as _};

fn watch(timing: Timing) -> Watch {
    let builder = Watchdog::builder().without_tracing().budget(100 * MS);
    builder.timing(timing).build().unwrap().watch("w")
}

/// Returns whether a poll of the watch is ticked, from inside it.
fn is_ticked_inside(watch: &Watch) -> bool {
    run(async { slot::current().is_some_and(slot::Slot::is_ticked) }.watched(watch))
}

#[test]
fn polls_under_ticked_timing_are_ticked() {
    let watch = watch(Timing::Ticked);
    let start = std::time::Instant::now();
    let mut polls = 1;
    // The first polls are timed exactly, and so are all until the ticker runs.
    while !is_ticked_inside(&watch) {
        polls += 1;
        assert!(start.elapsed() < MAX_WAIT, "the ticker does not run");
    }
    assert_eq!((watch.stats().polls, watch.stats().in_flight), (polls, 0));
}

#[test]
fn polls_under_exact_timing_are_exact() {
    let ticked = watch(Timing::Ticked);
    let exact = watch(Timing::Exact);
    // The ticker runs.
    while !is_ticked_inside(&ticked) {}
    assert!((0..1_000).all(|_| !is_ticked_inside(&exact)));
}

/// Returns whether the watch has a sample on this thread.
fn has_sample(watch: &Watch) -> bool {
    let cells = slot::current().and_then(|slot| watch.counters().cells(slot));
    cells.is_some_and(|cells| cells.sampled().is_some())
}

#[test]
fn only_ticked_polls_become_samples() {
    let (ticked, exact) = (watch(Timing::Ticked), watch(Timing::Exact));
    run(async {}.watched(&exact));
    assert_eq!((exact.stats().polls, has_sample(&exact)), (1, false));
    // Neither guards nor destructors become samples.
    drop(ticked.enter());
    drop(async {}.watched(&ticked));
    assert_eq!((ticked.stats().polls, has_sample(&ticked)), (1, false));
    // A poll during which a tick came does not.
    while !has_sample(&ticked) {
        run(async {}.watched(&ticked));
    }
}

//! The recorder and the mocked clock, as users test settings and reporters with them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use common::message;
use shotclock::testing::{MockClock, Recorder};
use shotclock::{Cause, Phase, Watchdog};

const MS: Duration = Duration::from_millis(1);

fn set_up() -> (MockClock, Recorder, Watchdog) {
    let (clock, recorder) = (MockClock::new(), Recorder::new());
    let builder = Watchdog::builder().without_tracing().mock_clock(&clock);
    let watchdog = builder.reporter(recorder.clone()).build().unwrap();
    (clock, recorder, watchdog)
}

/// Returns the message of a failing assertion.
fn failure_of<T: std::fmt::Debug>(assertion: impl FnOnce() -> T) -> String {
    message(catch_unwind(AssertUnwindSafe(assertion)).unwrap_err())
}

#[test]
fn mocked_clock_makes_times_exact() {
    let (clock, recorder, watchdog) = set_up();
    let watch = watchdog.watch("w");
    let entered = watch.enter();
    let told = |time| {
        clock.advance(time);
        clock.look();
        let reports = recorder.settled(&watchdog);
        reports.last().map(|slow| (slow.phase, slow.elapsed))
    };
    // A poll at its budget is not over it.
    assert_eq!(told(10 * MS), None);
    assert_eq!(told(MS), Some((Phase::Running, 11 * MS)));
    assert_eq!(told(10 * MS), Some((Phase::Running, 11 * MS)));
    assert_eq!(told(MS), Some((Phase::Running, 22 * MS)));
    clock.advance(MS);
    drop(entered);
    let slow = recorder.assert_reported(&watchdog, "w");
    assert_eq!((slow.elapsed, slow.cause), (23 * MS, Cause::Unknown));
    assert_eq!(watch.stats().longest, 23 * MS);
}

#[test]
fn mocked_clock_without_a_look_reports_at_the_end_only() {
    let (clock, recorder, watchdog) = set_up();
    let watch = watchdog.watch("w");
    let entered = watch.enter();
    clock.clone().advance(Duration::from_secs(3_600));
    recorder.assert_silent(&watchdog);
    drop(entered);
    assert_eq!(recorder.settled(&watchdog).len(), 1);
    assert_eq!(recorder.clone().take().len(), 1);
    recorder.assert_silent(&watchdog);
}

#[test]
fn mocked_clocks_are_independent() {
    let (one, recorder, watchdog) = set_up();
    let (other, _, elsewhere) = set_up();
    let (mine, theirs) = (watchdog.watch("w"), elsewhere.watch("w"));
    let both = (mine.enter(), theirs.enter());
    other.advance(50 * MS);
    one.look();
    drop(both);
    recorder.assert_silent(&watchdog);
    assert_eq!(
        (mine.stats().longest, theirs.stats().longest),
        (Duration::ZERO, 50 * MS)
    );
}

#[test]
fn wait_for_returns_a_report_of_a_running_poll() {
    let (clock, recorder, watchdog) = set_up();
    let watch = watchdog.watch("w");
    let waiting = {
        let recorder = recorder.clone();
        thread::spawn(move || recorder.wait_for(|slow| slow.phase == Phase::Finished))
    };
    let entered = watch.enter();
    clock.advance(11 * MS);
    clock.look();
    assert_eq!(
        recorder.wait_for(|slow| *slow.watch == *"w").phase,
        Phase::Running
    );
    drop(entered);
    assert_eq!(waiting.join().unwrap().phase, Phase::Finished);
}

#[test]
fn failed_assertion_lists_the_reports() {
    let (clock, recorder, watchdog) = set_up();
    let failure = failure_of(|| recorder.assert_reported(&watchdog, "checkout"));
    assert_eq!(
        failure,
        "no poll of \"checkout\" was reported; nothing was reported"
    );
    let search = watchdog.watch("search");
    let entered = search.enter();
    clock.advance(11 * MS);
    drop(entered);
    let failure = failure_of(|| recorder.assert_silent(&watchdog));
    assert!(
        failure.starts_with("1 report:\n- slow entered section of \"search\": 11.0ms"),
        "{failure}"
    );
    let failure = failure_of(|| recorder.assert_reported(&watchdog, "checkout"));
    assert!(
        failure.contains("\"checkout\" was reported; 1 report:\n- slow "),
        "{failure}"
    );
    assert_eq!(format!("{recorder:?}"), "Recorder { reports: 1, .. }");
}

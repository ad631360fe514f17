//! A clock that jumps: no count is lost, and no time is negative.

use super::*;
use crate::WatchExt as _;
use crate::sentinel::Scanner;

const JUMP: Duration = Duration::from_secs(1_000);

#[test]
fn clock_set_back_makes_a_poll_short() {
    let scene = Scene::new();
    let watch = scene.watch("w");
    scene.pass(2 * JUMP);
    let goes_back = poll_fn(|_| {
        scene.pass(20 * MS);
        scene.time.decrement(JUMP);
        Poll::Ready(())
    });
    run(goes_back.watched(&watch));
    let stats = watch.stats();
    assert_eq!(
        (stats.polls, stats.slow_polls, stats.longest),
        (1, 0, Duration::ZERO)
    );
    // Later polls are unaffected.
    run(scene.takes(20 * MS).watched(&watch));
    assert_eq!((watch.stats().polls, watch.stats().slow_polls), (2, 1));
    assert_eq!(scene.reports()[0].elapsed, 20 * MS);
}

#[test]
fn clock_set_back_within_nested_polls_charges_none() {
    let scene = Scene::new();
    let (outer, inner) = (scene.watch("outer"), scene.watch("inner"));
    scene.pass(2 * JUMP);
    let goes_back = poll_fn(|_| {
        scene.time.decrement(JUMP);
        Poll::Ready(())
    });
    run(async {
        scene.takes(5 * MS).watched(&inner).await;
        goes_back.watched(&inner).await;
    }
    .watched(&outer));
    assert!(scene.reports().is_empty());
    assert_eq!((outer.stats().polls, inner.stats().polls), (1, 2));
    assert_eq!(outer.stats().busy, Duration::ZERO);
}

#[test]
fn clock_that_jumps_ahead_makes_one_slow_poll() {
    let scene = Scene::new();
    let watch = scene.watch("w");
    run(scene.takes(JUMP).watched(&watch));
    let reports = scene.reports();
    assert_eq!((reports.len(), reports[0].elapsed), (1, JUMP));
    assert_eq!((watch.stats().polls, watch.stats().slow_polls), (1, 1));
}

#[test]
fn scan_after_a_clock_jump_continues() {
    let scene = Scene::new();
    let mut scanner = Scanner::new(scene.clock.clone());
    let watch = scene.watch("w");
    scene.pass(2 * JUMP);
    let poll = watch.enter();
    scene.time.decrement(JUMP);
    let sight = scanner.scan();
    assert!(sight.due.is_some_and(|due| due <= JUMP), "{sight:?}");
    assert_eq!(watch.stats().stalls, 0);
    // The clock catches up, and exceeds the budget.
    scene.pass(JUMP + 11 * MS);
    scanner.scan();
    assert_eq!(watch.stats().stalls, 1);
    scene.pass(JUMP);
    scanner.scan();
    drop(poll);
    let elapsed: Vec<_> = scene.reports().iter().map(|slow| slow.elapsed).collect();
    assert_eq!(elapsed, [11 * MS, JUMP + 11 * MS, JUMP + 11 * MS]);
    assert_eq!(watch.stats().slow_polls, 1);
}

#[test]
fn rate_limit_after_a_clock_set_back_stays_closed() {
    let scene = Scene::with(|builder| builder.reports_per_second(1));
    let watch = scene.watch("w");
    scene.pass(2 * JUMP);
    for _ in 0..10 {
        run(scene.takes(20 * MS).watched(&watch));
        scene.time.decrement(40 * MS);
    }
    assert_eq!(scene.reports().len(), 1);
    scene.pass(Duration::from_secs(2));
    run(scene.takes(20 * MS).watched(&watch));
    assert_eq!(scene.reports()[0].suppressed, 9);
    assert_eq!(watch.stats().slow_polls, 11);
}

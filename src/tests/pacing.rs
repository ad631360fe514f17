//! `yield_after` inside a watched future, under its mocked clock.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt as _};

use super::*;
use crate::{WatchExt as _, slice_ticker, yield_after};

const US: Duration = Duration::from_micros(1);
const SLICE: Duration = Duration::from_micros(500);

/// Returns the lengths of the polls of a watched future.
fn polls_of(scene: &Scene, future: impl Future<Output = ()>) -> Vec<Duration> {
    let mut future = pin!(future.watched(&scene.watch("loop")));
    let mut lengths = Vec::new();
    loop {
        let before = scene.clock.raw();
        let polled = poll_once(future.as_mut());
        let nanos = scene.clock.nanos_between(before, scene.clock.raw());
        lengths.push(Duration::from_nanos(nanos));
        if polled.is_ready() {
            return lengths;
        }
    }
}

/// Runs a loop. `cost` returns the time of an iteration by its number.
async fn paced(scene: &Scene, iterations: u32, cost: impl Fn(u32) -> Duration) {
    let mut pace = yield_after(SLICE);
    for i in 0..iterations {
        scene.pass(cost(i));
        pace.tick().await;
    }
}

fn longest(lengths: &[Duration]) -> Duration {
    lengths.iter().copied().max().unwrap()
}

#[test]
fn poll_lasts_a_slice_at_any_cost_of_an_iteration() {
    let scene = Scene::new();
    for cost in [Duration::from_nanos(3), US, 40 * US, 700 * US] {
        let iterations = u32::try_from(50 * SLICE.as_nanos() / cost.as_nanos()).unwrap();
        let lengths = polls_of(&scene, paced(&scene, iterations, |_| cost));
        assert!(longest(&lengths) <= SLICE + cost, "{cost:?}: {lengths:?}");
        // The polls are not much shorter than a slice: 50 slices of work are hardly more polls.
        assert!(lengths.len() <= 56, "{cost:?}: {}", lengths.len());
    }
}

#[test]
fn pace_follows_a_drifting_cost() {
    let scene = Scene::new();
    // From 100 ns to 50 µs and back, by 1 % at each iteration.
    let there =
        |i: u32| Duration::from_nanos((100.0 * 1.01f64.powi(i.min(1_200 - i) as i32)) as u64);
    let lengths = polls_of(&scene, paced(&scene, 1_200, there));
    assert!(longest(&lengths) <= SLICE * 3 / 2, "{lengths:?}");
}

#[test]
fn sudden_slow_iteration_yields_at_the_next_tick() {
    let scene = Scene::new();
    let slow = 3 * MS;
    let ticks_after = Cell::new(0);
    let work = async {
        let mut pace = yield_after(SLICE);
        for _ in 0..100_000 {
            scene.pass(Duration::from_nanos(10));
            pace.tick().await;
        }
        scene.pass(slow);
        // The slice ticker follows the real clock, which has hardly moved.
        slice_ticker::advance();
        pace.tick().await;
        ticks_after.set(ticks_after.get() + 1);
    };
    let lengths = polls_of(&scene, work);
    assert!(longest(&lengths) < SLICE + slow, "{lengths:?}");
    // The tick after it has yielded, so a new poll follows.
    assert_eq!(lengths.last(), Some(&Duration::ZERO));
    assert_eq!(ticks_after.get(), 1);
}

#[test]
fn siblings_yield_together() {
    let scene = Scene::new();
    let siblings = || (0..20).map(|_| paced(&scene, 2_000, |_| US));
    let together = async {
        join_all(siblings()).await;
    };
    let lengths = polls_of(&scene, together);
    // In the first poll each makes its first iteration before its first tick.
    assert!(longest(&lengths) <= SLICE + 20 * US, "{lengths:?}");
    assert!(lengths.len() <= 20 * 2_000 / 450, "{}", lengths.len());

    let selected = async {
        let (mut one, mut other) = (
            pin!(paced(&scene, 20_000, |_| US)),
            pin!(paced(&scene, 20_000, |_| US)),
        );
        futures::future::select(one.as_mut(), other.as_mut()).await;
    };
    let lengths = polls_of(&scene, selected);
    assert!(longest(&lengths) <= SLICE + 20 * US, "{lengths:?}");

    let unordered = async { siblings().collect::<FuturesUnordered<_>>().collect().await };
    let lengths = polls_of(&scene, unordered);
    assert!(longest(&lengths) <= SLICE + 20 * US, "{lengths:?}");
}

#[test]
fn sibling_that_is_always_late_makes_progress() {
    let scene = Scene::new();
    let done = RefCell::new(Vec::new());
    let greedy = async {
        for _ in 0..10_000 {
            scene.pass(2 * SLICE);
            crate::yield_every(1).tick().await;
        }
        done.borrow_mut().push("greedy");
    };
    let polite = async {
        paced(&scene, 100, |_| US).await;
        done.borrow_mut().push("polite");
    };
    let both = async {
        futures::join!(greedy, polite);
    };
    polls_of(&scene, both);
    assert_eq!(*done.borrow(), ["polite", "greedy"]);
}

#[test]
fn yield_that_ends_no_poll_restarts_the_slice() {
    let scene = Scene::new();
    let yields = Cell::new(0);
    // A future that polls inside a poll: a yield does not end the outer one.
    let inner = async {
        let mut work = pin!(paced(&scene, 1_000, |_| US));
        while poll_once(work.as_mut()).is_pending() {
            yields.set(yields.get() + 1);
        }
    };
    let lengths = polls_of(&scene, inner);
    assert_eq!(lengths, [1_000 * US]);
    // By the mocked clock one yield is due. After it, the real clock counts, and has hardly moved.
    assert!((1..100).contains(&yields.get()), "{yields:?}");
}

#[test]
fn guards_and_destructors_do_not_count_for_a_slice() {
    let scene = Scene::new();
    let watch = scene.watch("guard");
    let entered = watch.enter();
    scene.pass(MS);
    let lengths = polls_of(&scene, paced(&scene, 100, |_| US));
    drop(entered);
    assert_eq!(lengths, [100 * US]);
}

#[test]
fn synchronous_code_with_is_due_yields_at_its_edge() {
    let scene = Scene::new();
    let work = async {
        let mut pace = yield_after(SLICE);
        let mut left = 5_000;
        while left > 0 {
            while left > 0 && !pace.is_due() {
                scene.pass(US);
                left -= 1;
            }
            // It stays due until the task yields.
            assert!(left == 0 || pace.is_due());
            pace.yield_now().await;
        }
    };
    let lengths = polls_of(&scene, work);
    assert!(longest(&lengths) <= SLICE, "{lengths:?}");
    assert!((10..=13).contains(&lengths.len()), "{lengths:?}");
}

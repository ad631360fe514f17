//! Which of nested polls is charged, and with how much self time.

use super::*;
use crate::WatchExt as _;

fn names(scene: &Scene) -> Vec<String> {
    let reports = scene.reports();
    reports.iter().map(|slow| slow.watch.to_string()).collect()
}

#[test]
fn slow_poll_has_all_its_fields() {
    let scene = Scene::new();
    let here = std::panic::Location::caller();
    run(scene.takes(23 * MS).watched(&scene.watch("checkout")));
    let reports = scene.reports();
    let [slow] = &reports[..] else {
        panic!("{reports:?}")
    };
    assert_eq!(&*slow.watch, "checkout");
    assert_eq!(
        (slow.phase, slow.kind),
        (crate::Phase::Finished, crate::report::SectionKind::Poll)
    );
    assert_eq!(
        (slow.elapsed, slow.charged, slow.budget),
        (23 * MS, 23 * MS, 10 * MS)
    );
    assert_eq!(slow.cause, crate::Cause::Unknown);
    assert_eq!(slow.location.file(), here.file());
    assert_eq!(slow.location.line(), here.line() + 1);
    assert_eq!(slow.thread.id, std::thread::current().id());
    assert_eq!((slow.task, slow.suppressed), (None, 0));
    assert!(slow.path.is_empty());
    let text = slow.to_string();
    for part in [
        "checkout",
        "23.0ms",
        "budget 10ms",
        "nested.rs",
        "shotclock::offload",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn poll_at_its_budget_is_not_slow() {
    let scene = Scene::new();
    let watch = scene.watch("w");
    run(scene.takes(10 * MS).watched(&watch));
    assert_eq!(watch.stats().slow_polls, 0);
    run(scene
        .takes(10 * MS + Duration::from_nanos(1))
        .watched(&watch));
    assert_eq!(watch.stats().slow_polls, 1);
    assert_eq!(names(&scene), ["w"]);
}

#[test]
fn nested_slow_polls_report_the_innermost_only() {
    let scene = Scene::new();
    let [outer, middle, inner] = ["outer", "middle", "inner"].map(|name| scene.watch(name));
    let nested = scene.takes(50 * MS).watched(&inner);
    let nested = async {
        scene.takes(3 * MS).await;
        nested.await;
    };
    let nested = nested.watched(&middle);
    run(async {
        scene.takes(2 * MS).await;
        nested.await;
    }
    .watched(&outer));
    let reports = scene.reports();
    assert_eq!(reports.len(), 1);
    assert_eq!(&*reports[0].watch, "inner");
    assert_eq!(reports[0].path.to_string(), "outer > middle");
    assert_eq!(
        reports[0].path.iter().collect::<Vec<_>>(),
        ["outer", "middle"]
    );
    let slow = [&outer, &middle, &inner].map(|watch| watch.stats().slow_polls);
    assert_eq!(slow, [0, 0, 1]);
    // Self times add up. The histogram has whole polls.
    let busy = [&outer, &middle, &inner].map(|watch| watch.stats().busy);
    assert_eq!(busy, [2 * MS, 3 * MS, 50 * MS]);
    let longest = [&outer, &middle, &inner].map(|watch| watch.stats().longest);
    assert_eq!(longest, [55 * MS, 53 * MS, 50 * MS]);
}

#[test]
fn outer_poll_over_budget_by_itself_is_reported_too() {
    let scene = Scene::new();
    let (outer, inner) = (scene.watch("outer"), scene.watch("inner"));
    run(async {
        scene.takes(50 * MS).watched(&inner).await;
        scene.takes(11 * MS).await;
    }
    .watched(&outer));
    let reports = scene.reports();
    let told: Vec<_> = reports
        .iter()
        .map(|r| (&*r.watch, r.elapsed, r.charged))
        .collect();
    assert_eq!(
        told,
        [("inner", 50 * MS, 50 * MS), ("outer", 61 * MS, 11 * MS)]
    );
}

#[test]
fn outer_poll_with_many_fast_polls_inside_is_slow() {
    let scene = Scene::new();
    let (outer, child) = (scene.watch("outer"), scene.watch("child"));
    run(async {
        for _ in 0..20 {
            scene.takes(MS).watched(&child).await;
        }
    }
    .watched(&outer));
    assert_eq!(names(&scene), ["outer"]);
    assert_eq!((outer.stats().polls, child.stats().polls), (1, 20));
    assert_eq!(outer.stats().busy, Duration::ZERO);
    assert_eq!(child.stats().busy, 20 * MS);
}

#[test]
fn nested_polls_are_charged_by_their_own_budgets() {
    let scene = Scene::new();
    let outer = scene.watch("outer");
    let patient = scene.watch("patient").with_budget(100 * MS);
    run(async { scene.takes(50 * MS).watched(&patient).await }.watched(&outer));
    // The budget of the inner poll allows this time, and that of the outer one does not.
    assert_eq!(names(&scene), ["outer"]);
}

#[test]
fn suppressed_inner_poll_excuses_the_outer_poll() {
    let scene = Scene::with(|builder| builder.reports_per_second(0));
    let (outer, inner) = (scene.watch("outer"), scene.watch("inner"));
    run(async { scene.takes(50 * MS).watched(&inner).await }.watched(&outer));
    assert_eq!((outer.stats().slow_polls, inner.stats().slow_polls), (0, 1));
}

#[test]
fn budget_of_zero_and_of_the_maximum_are_accepted() {
    let scene = Scene::new();
    let watch = scene.watch("w");
    run(scene
        .takes(1_000_000 * MS)
        .watched(&watch.with_budget(Duration::MAX)));
    assert_eq!(watch.stats().slow_polls, 0);
    run(scene
        .takes(Duration::from_nanos(1))
        .watched(&watch.with_budget(Duration::ZERO)));
    assert_eq!(watch.stats().slow_polls, 1);
    run(scene
        .takes(Duration::ZERO)
        .watched(&watch.with_budget(Duration::ZERO)));
    assert_eq!((watch.stats().slow_polls, watch.stats().polls), (1, 3));
}

#[test]
fn watch_of_a_known_name_is_the_same_watch() {
    let scene = Scene::new();
    run(scene.takes(MS).watched(&scene.watch("w")));
    run(scene
        .takes(MS)
        .watched(&scene.watch("w").with_budget(5 * MS)));
    assert_eq!(scene.watch("w").stats().polls, 2);
    assert_eq!(scene.watchdog.snapshot().iter().count(), 1);
}

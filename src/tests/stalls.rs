//! Scans of the sentinel, one by one under a mocked clock.

use super::*;
use crate::report::SectionKind;
use crate::sentinel::Scanner;
use crate::{Phase, Status, WatchExt as _};

const NS: Duration = Duration::from_nanos(1);

impl Scene {
    fn scanner(&self) -> Scanner {
        Scanner::new(self.clock.clone())
    }
}

fn reported(scene: &Scene) -> Vec<(String, Phase, Duration)> {
    let reports = scene.reports();
    let told = |slow: &SlowPoll| (slow.watch.to_string(), slow.phase, slow.elapsed);
    reports.iter().map(told).collect()
}

#[test]
fn stall_is_reported_after_its_budget_only() {
    let scene = Scene::new();
    let mut scanner = scene.scanner();
    let watch = scene.watch("w");
    let poll = watch.enter();
    assert_eq!(scanner.scan().due, Some(10 * MS + NS));
    scene.pass(9 * MS);
    assert_eq!(scanner.scan().due, Some(MS + NS));
    scene.pass(MS);
    assert_eq!(scanner.scan().due, Some(NS));
    assert_eq!(reported(&scene), []);
    assert_eq!(scene.watchdog.health().status, Status::Responsive);

    scene.pass(MS);
    let due = scanner.scan().due;
    assert_eq!(due, Some(11 * MS), "again at twice the time");
    let reports = scene.reports();
    let [slow] = &reports[..] else {
        panic!("{reports:?}")
    };
    assert_eq!(
        (slow.phase, slow.kind),
        (Phase::Running, SectionKind::Entered)
    );
    assert_eq!((slow.elapsed, slow.charged), (11 * MS, 11 * MS));
    assert_eq!(slow.location.file(), file!());
    assert_eq!(slow.thread.id, std::thread::current().id());
    assert!(
        slow.to_string().contains("stalled entered section"),
        "{slow}"
    );
    let health = scene.watchdog.health();
    assert_eq!(health.status, Status::Stalled);
    assert_eq!((health.stalls, health.oldest_stall), (1, Some(11 * MS)));
    assert_eq!(watch.stats().stalls, 1);
    drop(poll);
    assert_eq!(scene.watchdog.health().status, Status::Responsive);
    let end = scene.reports();
    assert_eq!((end[0].phase, end[0].id), (Phase::Finished, slow.id));
    assert_eq!(watch.stats().slow_polls, 1);
}

#[test]
fn stall_without_end_is_reported_at_doubling_times() {
    let scene = Scene::new();
    let mut scanner = scene.scanner();
    let watch = scene.watch("w");
    let poll = watch.enter();
    for _ in 0..100 {
        scene.pass(MS);
        scanner.scan();
    }
    let reports = scene.reports();
    let at: Vec<_> = reports.iter().map(|slow| slow.elapsed).collect();
    assert_eq!(at, [11 * MS, 22 * MS, 44 * MS, 88 * MS]);
    assert!(reports.iter().all(|slow| slow.id == reports[0].id));
    drop(poll);
    assert_eq!(reported(&scene), [("w".into(), Phase::Finished, 100 * MS)]);
}

#[test]
fn nested_stalls_report_the_innermost_only() {
    let scene = Scene::new();
    let mut scanner = scene.scanner();
    let (outer, inner) = (scene.watch("outer"), scene.watch("inner"));
    let around = outer.enter();
    scene.pass(5 * MS);
    let within = inner.enter();
    for _ in 0..50 {
        scene.pass(MS);
        scanner.scan();
        // The outer one is charged until the inner one exceeds its own budget.
    }
    let reports = scene.reports();
    let names: Vec<_> = reports.iter().map(|slow| &*slow.watch).collect();
    assert_eq!(names, ["outer", "inner", "inner", "inner"]);
    assert_eq!(reports[1].path.to_string(), "outer");
    drop(within);
    drop(around);
    // A reported stall also has a report of its end, even if another poll was charged at last.
    let ends = reported(&scene);
    let ended = |name: &str, ms| (name.into(), Phase::Finished, ms * MS);
    assert_eq!(ends, [ended("inner", 50), ended("outer", 55)]);
    assert_eq!((outer.stats().slow_polls, inner.stats().slow_polls), (0, 1));
}

#[test]
fn suppressed_stall_is_counted_once_and_has_no_last_report() {
    let scene = Scene::with(|builder| builder.reports_per_second(1));
    let mut scanner = scene.scanner();
    let watch = scene.watch("w");
    run(scene.takes(11 * MS).watched(&watch));
    let poll = watch.enter();
    for _ in 0..40 {
        scene.pass(MS);
        scanner.scan();
    }
    drop(poll);
    assert_eq!(reported(&scene).len(), 1);
    scene.pass(Duration::from_secs(1));
    run(scene.takes(11 * MS).watched(&watch));
    assert_eq!(scene.reports()[0].suppressed, 1);
    assert_eq!(watch.stats().slow_polls, 3);
}

#[test]
fn stall_on_a_reporter_thread_is_not_reported() {
    let (clock, time) = Clock::mock();
    let (tx, rx) = std::sync::mpsc::channel();
    let own = Arc::<Mutex<Option<Watch>>>::default();
    let reporter = {
        let (own, time, clock) = (Arc::clone(&own), Arc::clone(&time), clock.clone());
        move |slow: &SlowPoll| {
            let watch = own.lock().unwrap().clone();
            let _entered = watch.as_ref().map(Watch::enter);
            time.increment(50 * MS);
            Scanner::new(clock.clone()).scan();
            tx.send(slow.id).unwrap();
        }
    };
    let builder = Watchdog::builder().without_tracing().clock(clock);
    let watchdog = builder.on_slow_poll(reporter).build().unwrap();
    let watch = watchdog.watch("reporting");
    *own.lock().unwrap() = Some(watch.clone());
    let entered = watch.enter();
    time.increment(11 * MS);
    drop(entered);
    assert!(watchdog.flush(MAX_WAIT));
    assert!(watchdog.flush(MAX_WAIT));
    assert_eq!(rx.try_iter().count(), 1);
    assert_eq!(watch.stats().slow_polls, 2);
    own.lock().unwrap().take();
}

#[test]
fn next_scan_without_polls_is_not_due() {
    let scene = Scene::new();
    let mut scanner = scene.scanner();
    let watch = scene.watch("w").with_budget(Duration::MAX);
    let poll = watch.enter();
    let sight = scanner.scan();
    assert!(!sight.is_idle);
    assert_eq!(sight.due, Some(Duration::from_nanos(u64::MAX)));
    drop(poll);
    assert_eq!(scanner.scan().due, None);
}

//! The rate limit suppresses frequent short polls, and no hang.

use super::*;
use crate::sentinel::Scanner;
use crate::{Phase, WatchExt as _};

impl Scene {
    /// Makes more slow polls than the rate limit admits in this second.
    fn noise(&self, watch: &Watch) {
        for _ in 0..8 {
            run(self.takes(15 * MS).watched(watch));
        }
    }

    /// Advances the clock by a millisecond at a time, with a scan each time.
    fn pass_and_scan(&self, scanner: &mut Scanner, time: Duration) {
        for _ in 0..time.as_millis() {
            self.pass(MS);
            scanner.scan();
        }
    }

    /// Returns the reports of one poll: their phases and elapsed times.
    fn reports_of(&self, id: u64) -> Vec<(Phase, Duration)> {
        let reports = self.reports().into_iter();
        let of_poll = reports.filter(|slow| slow.id == id);
        of_poll.map(|slow| (slow.phase, slow.elapsed)).collect()
    }
}

#[test]
fn hang_of_a_noisy_watch_is_reported_after_ten_budgets_and_at_its_end() {
    let scene = Scene::new();
    let mut scanner = Scanner::new(scene.clock.clone());
    let watch = scene.watch("w");
    scene.noise(&watch);
    assert_eq!(scene.reports().len(), 5);
    let hang = watch.enter();
    scene.pass_and_scan(&mut scanner, 99 * MS);
    assert_eq!(scene.reports().len(), 0, "the second is used up");
    scene.pass_and_scan(&mut scanner, 2 * MS);
    let reports = scene.reports();
    assert_eq!(reports.len(), 1);
    let Some(first) = reports.first() else { return };
    assert_eq!((first.phase, first.elapsed), (Phase::Running, 100 * MS));
    assert_eq!(first.suppressed, 3, "those of the noise");
    scene.pass_and_scan(&mut scanner, 100 * MS);
    drop(hang);
    let expected = [(Phase::Running, 200 * MS), (Phase::Finished, 201 * MS)];
    assert_eq!(scene.reports_of(first.id), expected);
}

#[test]
fn suppressed_poll_asks_again_at_doubling_times() {
    let scene = Scene::new();
    let mut scanner = Scanner::new(scene.clock.clone());
    let watch = scene.watch("w").with_budget(Duration::from_secs(1));
    // The next second comes long before ten budgets.
    scene.noise(&scene.watch("w"));
    scene.reports();
    let poll = watch.enter();
    scene.pass_and_scan(&mut scanner, Duration::from_millis(1_100));
    let reports = scene.reports();
    assert_eq!(reports.len(), 1, "{reports:?}");
    drop(poll);
    assert_eq!(scene.reports_of(reports[0].id).len(), 1);
}

#[test]
fn slow_poll_of_ten_budgets_is_reported_at_its_end_without_a_scan() {
    let scene = Scene::new();
    let watch = scene.watch("w");
    scene.noise(&watch);
    scene.reports();
    run(scene.takes(99 * MS).watched(&watch));
    run(scene.takes(100 * MS).watched(&watch));
    let reports = scene.reports();
    let told: Vec<_> = reports
        .iter()
        .map(|slow| (slow.elapsed, slow.suppressed))
        .collect();
    assert_eq!(told, [(100 * MS, 4)]);
}

#[test]
fn rate_limit_of_zero_suppresses_all() {
    let scene = Scene::with(|builder| builder.reports_per_second(0));
    let mut scanner = Scanner::new(scene.clock.clone());
    let watch = scene.watch("w");
    let hang = watch.enter();
    scene.pass_and_scan(&mut scanner, 300 * MS);
    drop(hang);
    assert_eq!(scene.reports().len(), 0);
    assert_eq!(watch.stats().slow_polls, 1);
}

#[test]
fn report_after_a_clock_set_back_by_an_hour_is_admitted() {
    let scene = Scene::new();
    let watch = scene.watch("w");
    scene.pass(Duration::from_secs(7_200));
    scene.noise(&watch);
    assert_eq!(scene.reports().len(), 5);
    scene.time.decrement(Duration::from_secs(3_600));
    scene.noise(&watch);
    assert_eq!(scene.reports().len(), 5);
}

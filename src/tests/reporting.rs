//! Faulty reporters, and the rate limit of reports.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;

use super::*;
use crate::WatchExt as _;

fn slow_polls(scene: &Scene, watch: &Watch, count: u64) {
    for _ in 0..count {
        run(scene.takes(11 * MS).watched(watch));
    }
}

#[test]
fn rate_limit_admits_five_a_second_and_counts_the_rest() {
    let scene = Scene::new();
    let watch = scene.watch("w").with_budget(Duration::ZERO);
    let burst = |count: u64| {
        for _ in 0..count {
            run(scene.takes(Duration::from_nanos(1)).watched(&watch));
        }
    };
    let suppressed = || {
        scene
            .reports()
            .iter()
            .map(|slow| slow.suppressed)
            .collect::<Vec<_>>()
    };
    burst(1_000);
    assert_eq!(suppressed(), [0; 5]);
    scene.pass(Duration::from_secs(1));
    burst(3);
    assert_eq!(suppressed(), [995, 0, 0]);
    scene.pass(Duration::from_secs(1));
    burst(7);
    assert_eq!(suppressed(), [0; 5]);
    scene.pass(Duration::from_secs(3_600));
    burst(1);
    assert_eq!(suppressed(), [2]);
    assert_eq!(watch.stats().slow_polls, 1_011);
}

#[test]
fn rate_limit_is_separate_for_each_watch() {
    let scene = Scene::with(|builder| builder.reports_per_second(1));
    for name in ["a", "b", "c"] {
        slow_polls(&scene, &scene.watch(name), 3);
    }
    let mut names: Vec<_> = scene
        .reports()
        .iter()
        .map(|slow| slow.watch.to_string())
        .collect();
    names.sort();
    assert_eq!(names, ["a", "b", "c"]);
}

#[test]
fn ids_of_two_polls_differ() {
    let scene = Scene::new();
    slow_polls(&scene, &scene.watch("w"), 5);
    let mut ids: Vec<_> = scene.reports().iter().map(|slow| slow.id).collect();
    ids.dedup();
    assert_eq!(ids.len(), 5);
}

#[test]
fn reporter_that_panics_is_called_again() {
    let calls = Arc::new(AtomicU64::new(0));
    let scene = Scene::with(|builder| {
        let calls = Arc::clone(&calls);
        builder.on_slow_poll(move |_: &SlowPoll| {
            calls.fetch_add(1, Relaxed);
            panic!("a reporter");
        })
    });
    slow_polls(&scene, &scene.watch("w"), 4);
    assert_eq!(scene.reports().len(), 4);
    assert_eq!(calls.load(Relaxed), 4);
}

#[test]
fn reporter_that_blocks_loses_only_its_own_reports() {
    let (unblock, blocked) = mpsc::channel::<()>();
    let (tx, rx) = mpsc::channel();
    let scene = Scene::with(|builder| {
        let builder = builder.reports_per_second(u32::MAX).report_queue(4);
        builder.on_slow_poll(move |slow: &SlowPoll| {
            let _ = blocked.recv();
            let _ = tx.send(slow.id);
        })
    });
    let watch = scene.watch("w");
    for collected in 0..100 {
        slow_polls(&scene, &watch, 1);
        // The other reporter keeps up, so the test waits for it alone.
        while scene.reports.lock().unwrap().len() == collected {
            std::thread::yield_now();
        }
    }
    assert!(
        !scene.watchdog.flush(Duration::ZERO),
        "one reporter is blocked"
    );
    assert_eq!(watch.stats().slow_polls, 100);
    let dropped = scene.watchdog.dropped_reports();
    // One report in delivery and four in the queue. The first may not have left the queue before the fifth arrived.
    assert!((95..=96).contains(&dropped), "{dropped}");
    drop(unblock);
    assert!(scene.watchdog.flush(MAX_WAIT));
    assert_eq!(rx.try_iter().count() as u64, 100 - dropped);
}

#[test]
fn slow_poll_on_a_reporter_thread_is_counted_only() {
    let (clock, time) = Clock::mock();
    let own = Arc::<Mutex<Option<Watch>>>::default();
    let reports = Arc::new(AtomicU64::new(0));
    let reporter = {
        let (own, reports, time) = (Arc::clone(&own), Arc::clone(&reports), Arc::clone(&time));
        move |_: &SlowPoll| {
            reports.fetch_add(1, Relaxed);
            let watch = own.lock().unwrap().clone();
            let entered = watch.as_ref().map(Watch::enter);
            time.increment(50 * MS);
            drop(entered);
        }
    };
    let builder = Watchdog::builder().without_tracing().clock(clock);
    let watchdog = builder.on_slow_poll(reporter).build().unwrap();
    let logging = watchdog.watch("logging");
    *own.lock().unwrap() = Some(logging.clone());
    let entered = logging.enter();
    time.increment(50 * MS);
    drop(entered);
    assert!(watchdog.flush(MAX_WAIT));
    assert!(watchdog.flush(MAX_WAIT));
    assert_eq!(reports.load(Relaxed), 1);
    assert_eq!(logging.stats().slow_polls, 2);
    // Breaks the circle: the reporter holds a watch, and the watch its reporters.
    own.lock().unwrap().take();
}

#[test]
fn burst_of_slow_polls_is_bounded_and_counted() {
    let scene = Scene::with(|builder| builder.reports_per_second(u32::MAX).report_queue(8));
    let watch = scene.watch("w").with_budget(Duration::ZERO);
    for _ in 0..100_000 {
        run(scene.takes(Duration::from_nanos(1)).watched(&watch));
    }
    let reported = scene.reports().len() as u64;
    assert_eq!(watch.stats().slow_polls, 100_000);
    assert_eq!(reported + scene.watchdog.dropped_reports(), 100_000);
}

#[test]
fn reporters_end_with_the_last_handle() {
    struct Forward(mpsc::Sender<()>);
    impl crate::Reporter for Forward {
        fn on_slow_poll(&self, _: &SlowPoll) {
            let _ = self.0.send(());
        }
    }
    let (tx, rx) = mpsc::channel();
    let scene = Scene::with(|builder| builder.reporter(Forward(tx)));
    let watch = scene.watch("w");
    slow_polls(&scene, &watch, 2);
    drop((scene, watch));
    // The reporter gets the queued reports. Then it is dropped, with its end of the channel.
    assert_eq!(rx.iter().count(), 2);
}

#[test]
fn reporter_that_uses_up_wake_ups_ends() {
    struct Parks {
        go_on: mpsc::Receiver<()>,
        _told: mpsc::Sender<()>,
    }
    impl crate::Reporter for Parks {
        fn on_slow_poll(&self, _: &SlowPoll) {
            let _ = self.go_on.recv();
            std::thread::park_timeout(Duration::ZERO);
        }
    }
    let (go_on, waits) = mpsc::channel();
    let (told, ended) = mpsc::channel();
    let parks = Parks {
        go_on: waits,
        _told: told,
    };
    let scene = Scene::with(|builder| builder.reporter(parks));
    slow_polls(&scene, &scene.watch("w"), 1);
    drop(scene);
    drop(go_on);
    assert_eq!(
        ended.recv_timeout(MAX_WAIT),
        Err(mpsc::RecvTimeoutError::Disconnected)
    );
}

#[test]
fn build_with_an_invalid_setting_names_it() {
    let refused = [
        (Watchdog::builder().budget(Duration::ZERO), "budget"),
        (Watchdog::builder().max_watches(0), "max_watches"),
        (Watchdog::builder().report_queue(0), "report_queue"),
        (Watchdog::builder().report_queue(usize::MAX), "report_queue"),
    ];
    for (builder, name) in refused {
        let error = builder.build().unwrap_err();
        assert!(error.is_invalid_setting());
        assert!(error.to_string().contains(name), "{error}");
    }
    let endless = Watchdog::builder().budget(Duration::MAX).build().unwrap();
    assert_eq!(endless.watch("w").budget(), Duration::MAX);
}

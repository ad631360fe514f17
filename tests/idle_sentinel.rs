//! The sentinel and the ticker sleep while no poll is in flight. The test has its own process, because any poll wakes them.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use shotclock::{Phase, SlowPoll, Watchdog};

/// Returns a thread by its name. A thread sets its name when it first runs.
fn thread(called: &str) -> PathBuf {
    let is_it = |thread: &PathBuf| {
        let name = fs::read_to_string(thread.join("comm"));
        name.is_ok_and(|name| name.trim() == called)
    };
    let look = |_| {
        std::thread::sleep(Duration::from_millis(5));
        let threads = fs::read_dir("/proc/self/task").unwrap();
        let mut threads = threads.map(|thread| thread.unwrap().path());
        threads.find(is_it)
    };
    (0..10_000).find_map(look).expect("no such thread")
}

/// Returns the voluntary context switches of a thread: one for each sleep.
fn sleeps(thread: &std::path::Path) -> u64 {
    let status = fs::read_to_string(thread.join("status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

#[test]
fn idle_sentinel_has_no_wake_up_until_the_next_poll() {
    let (tx, rx) = mpsc::channel();
    let report = move |slow: &SlowPoll| {
        let _ = tx.send(slow.phase);
    };
    let builder = Watchdog::builder().without_tracing().on_slow_poll(report);
    let watchdog = builder.budget(Duration::from_millis(5)).build().unwrap();
    let watch = watchdog.watch("w");
    for _ in 0..3 {
        drop(watch.enter());
        let threads = ["shotclock-watch", "shotclock-ticks"].map(thread);
        let sleeps = || threads.each_ref().map(|thread| sleeps(thread));
        // The threads park after a few sleeps, at any speed of the machine.
        let quiet = |_: &u32| {
            let before = sleeps();
            std::thread::sleep(Duration::from_secs(1));
            sleeps() == before
        };
        assert!((0..30).any(|second| quiet(&second)), "they never sleep");

        let stuck = watch.enter();
        let told = rx.recv_timeout(Duration::from_secs(60));
        assert_eq!(told, Ok(Phase::Running));
        drop(stuck);
        while rx.recv_timeout(Duration::from_secs(60)).unwrap() != Phase::Finished {}
    }
}

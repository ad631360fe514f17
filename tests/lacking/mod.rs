//! What tests of a process that lacks something share.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shotclock::{Phase, SlowPoll, Watchdog};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn watchdog() -> (Watchdog, Receiver<SlowPoll>) {
    let (tx, reports) = mpsc::channel();
    let report = move |slow: &SlowPoll| drop(tx.send(slow.clone()));
    let builder = Watchdog::builder().without_tracing().on_slow_poll(report);
    (
        builder.reports_per_second(u32::MAX).build().unwrap(),
        reports,
    )
}

/// A poll that blocks: its first report, and its last.
pub(crate) fn stuck(watchdog: &Watchdog, reports: &Receiver<SlowPoll>) -> (SlowPoll, SlowPoll) {
    let watch = watchdog.watch("stuck");
    let poll = watch.enter();
    std::thread::sleep(Duration::from_millis(200));
    let running = reports.recv_timeout(PATIENCE).unwrap();
    assert_eq!(running.phase, Phase::Running);
    drop(poll);
    loop {
        let slow = reports.recv_timeout(PATIENCE).unwrap();
        if slow.phase == Phase::Finished {
            assert_eq!(slow.id, running.id);
            return (running, slow);
        }
    }
}

/// As low as that, or as it was allowed to be at most.
pub(crate) fn set_limit(resource: Resource, limit: u64) {
    let maximum = getrlimit(resource).maximum;
    let current = Some(maximum.map_or(limit, |maximum| limit.min(maximum)));
    setrlimit(resource, Rlimit { current, maximum }).unwrap();
}

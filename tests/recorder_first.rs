//! A recorder that is installed before the watchdog. The crate's thread publishes without a request.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::{Duration, Instant};

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use shotclock::{WatchExt as _, Watchdog};

fn polls(snapshotter: &Snapshotter) -> Option<u64> {
    let all = snapshotter.snapshot().into_vec();
    let mut polls = all.into_iter().filter_map(|(key, .., value)| match value {
        DebugValue::Counter(count) if key.key().name() == "shotclock_polls_total" => Some(count),
        _ => None,
    });
    polls.next()
}

#[test]
fn recorder_installed_first_gets_all_durations() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    let watchdog = Watchdog::builder().without_tracing().build().unwrap();
    let watch = watchdog.watch("w");
    futures::executor::block_on(async {}.watched(&watch));
    // The thread publishes each second. The bound is for a very busy machine.
    let give_up = Instant::now() + Duration::from_secs(60);
    while polls(&snapshotter) != Some(1) {
        assert!(Instant::now() < give_up, "never published");
        std::thread::sleep(Duration::from_millis(20));
    }
}

//! Reporters that block without end, or panic each time, harm no other reporter. The test has its own process, because the
//! process counts lost reports.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use shotclock::prometheus::Exporter;
use shotclock::testing::MockClock;
use shotclock::{SlowPoll, Watch, Watchdog, WatchdogBuilder};

const PATIENCE: Duration = Duration::from_secs(60);
const POLLS: u64 = 200;
const QUEUE: u64 = 4;

/// Builds a watchdog whose reporter sends the names of slow watches.
fn watchdog(
    clock: &MockClock,
    set_up: impl FnOnce(WatchdogBuilder) -> WatchdogBuilder,
) -> (Watchdog, Receiver<String>) {
    let (tx, told) = mpsc::channel();
    let builder = Watchdog::builder().without_tracing().mock_clock(clock);
    let builder = builder.reports_per_second(u32::MAX);
    let builder =
        set_up(builder).on_slow_poll(move |slow: &SlowPoll| drop(tx.send(slow.watch.to_string())));
    (builder.build().unwrap(), told)
}

fn slow_poll(clock: &MockClock, watch: &Watch) {
    let poll = watch.enter();
    clock.advance(2 * watch.budget());
    drop(poll);
}

fn dropped(exporter: &Exporter) -> u64 {
    let text = exporter.render();
    let line = |line: &str| {
        line.strip_prefix("shotclock_reports_dropped_total ")?
            .parse()
            .ok()
    };
    text.lines().find_map(line).unwrap()
}

/// State: the blocked reporter keeps its thread and a full queue, and further reports are counted. The panicking one is called
/// for each report, and a third one gets all. The watchdog ends without a wait, and another one works.
#[test]
fn blocked_and_panicking_reporters_harm_no_other() {
    let exporter = Exporter::new(shotclock::prometheus::builder().install_recorder().unwrap());
    let (clock, called) = (MockClock::new(), Arc::<AtomicU64>::default());
    let (never, blocks) = mpsc::channel::<()>();
    let (watchdog_with_them, told) = watchdog(&clock, |builder| {
        let called = Arc::clone(&called);
        let builder = builder.report_queue(QUEUE as usize);
        let builder = builder.on_slow_poll(move |_: &SlowPoll| {
            let _ = blocks.recv();
        });
        builder.on_slow_poll(move |_: &SlowPoll| {
            called.fetch_add(1, SeqCst);
            // Without the panic hook, which would print.
            std::panic::resume_unwind(Box::new("a reporter"));
        })
    });
    let watch = watchdog_with_them.watch("first");
    for polls in 1..=POLLS {
        slow_poll(&clock, &watch);
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), "first");
        // Its queue is never full.
        while called.load(SeqCst) < polls {
            std::thread::yield_now();
        }
    }
    assert_eq!(called.load(SeqCst), POLLS);
    assert!(
        !watchdog_with_them.flush(Duration::ZERO),
        "one reporter is blocked"
    );
    let stats = watch.stats();
    assert_eq!((stats.polls, stats.slow_polls), (POLLS, POLLS));
    // It has one report, or its thread had not taken it when the queue was full.
    let kept = POLLS - dropped(&exporter);
    assert!((QUEUE..=QUEUE + 1).contains(&kept), "{kept}");

    drop((watchdog_with_them, watch));
    // The third reporter ends with its thread and its end of the channel. The blocked one stays.
    let ended = told.recv_timeout(PATIENCE);
    assert_eq!(ended, Err(RecvTimeoutError::Disconnected));
    let (another, told) = watchdog(&clock, |builder| builder);
    slow_poll(&clock, &another.watch("second"));
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), "second");
    assert!(another.flush(PATIENCE));
    let text = exporter.render();
    for polls in [
        format!("shotclock_polls_total{{watch=\"first\"}} {POLLS}\n"),
        "shotclock_polls_total{watch=\"second\"} 1\n".to_owned(),
    ] {
        assert!(text.contains(&polls), "{text}");
    }
    drop(never);
}

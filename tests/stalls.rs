//! Stalled polls are reported while all workers of their runtime are stuck.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use shotclock::prometheus::install;
use shotclock::{Phase, SlowPoll, Status, WatchExt as _, Watchdog};

const PATIENCE: Duration = Duration::from_secs(60);

fn watchdog(budget: Duration) -> (Watchdog, Receiver<SlowPoll>) {
    let (tx, rx) = mpsc::channel();
    let report = move |slow: &SlowPoll| drop(tx.send(slow.clone()));
    let builder = Watchdog::builder().without_tracing().budget(budget);
    (builder.on_slow_poll(report).build().unwrap(), rx)
}

fn scrape(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(series));
    let line = line.unwrap_or_else(|| panic!("{series} is not in {text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn stall_on_all_workers_is_reported() {
    let exporter = install("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = exporter.local_addr().unwrap();
    let (watchdog, reports) = watchdog(Duration::from_millis(20));
    let watch = watchdog.watch("stuck");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    let (release, held) = mpsc::channel::<()>();
    let task = runtime.spawn(
        async move {
            let _ = held.recv_timeout(PATIENCE);
        }
        .watched(&watch),
    );
    let first = reports.recv_timeout(PATIENCE).unwrap();
    assert_eq!((&*first.watch, first.phase), ("stuck", Phase::Running));
    assert!(first.elapsed > first.budget);
    assert_eq!(first.location.file(), file!());
    assert_eq!(first.thread.to_string(), "tokio-rt-worker");

    // The runtime is stuck, and the watchdog is not.
    let text = scrape(address);
    let stalls = value(&text, r#"shotclock_stalls_in_flight{watch="stuck"}"#);
    let oldest = value(&text, "shotclock_oldest_stall_seconds ");
    assert_eq!(stalls, 1.0);
    // Without starved time, which may be part of the reported time.
    assert!(oldest > first.budget.as_secs_f64(), "{oldest}");
    let health = watchdog.health();
    assert_eq!((health.status, health.stalls), (Status::Stalled, 1));
    assert!(health.oldest_stall > Some(first.budget));
    assert_eq!(watch.stats().slow_polls, 0, "it has not ended");

    let again = reports.recv_timeout(PATIENCE).unwrap();
    assert_eq!((again.id, again.phase), (first.id, Phase::Running));
    assert!(again.elapsed >= 2 * first.elapsed, "{again:?}");

    release.send(()).unwrap();
    runtime.block_on(task).unwrap();
    let mut rest = std::iter::from_fn(|| reports.recv_timeout(PATIENCE).ok());
    let end = rest.find(|slow| slow.phase == Phase::Finished).unwrap();
    assert_eq!(end.id, first.id);
    assert!(end.elapsed >= again.elapsed && end.task.is_some());
    assert_eq!(watchdog.health().status, Status::Responsive);
    let text = scrape(address);
    assert_eq!(value(&text, "shotclock_oldest_stall_seconds "), 0.0);
    assert_eq!(
        value(&text, r#"shotclock_stalls_in_flight{watch="stuck"}"#),
        0.0
    );
    assert_eq!(watch.stats().slow_polls, 1);
}

#[test]
fn polls_within_their_budget_are_not_reported() {
    let (watchdog, reports) = watchdog(PATIENCE);
    let watch = watchdog.watch("quick");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for _ in 0..10 {
        runtime.block_on(async { std::thread::sleep(Duration::from_millis(3)) }.watched(&watch));
    }
    drop((watchdog, watch));
    assert_eq!(
        reports.recv_timeout(PATIENCE).err(),
        Some(RecvTimeoutError::Disconnected)
    );
}

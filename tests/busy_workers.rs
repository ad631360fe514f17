//! Busy guarded runtimes with short polls: no report.
//!
//! The long version takes three minutes, and prints the table:
//!
//! ```sh
//! cargo test --release --test busy_workers -- --ignored --nocapture
//! ```

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use futures::future::LocalBoxFuture;
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use shotclock::testing::Recorder;
use shotclock::{StuckWorker, Watch, WatchExt as _, Watchdog};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet, yield_now};

const WORKERS: usize = 2;
const TASKS: usize = 64;
const CONNECTIONS: usize = 16;
/// Longer than any poll.
const LONG: Duration = Duration::from_secs(3_600);

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .unwrap()
}

/// Returns the reports of workers while `load` runs on a guarded runtime, and the amount of its work.
fn reports_under(
    runtime: &Runtime,
    load: impl FnOnce(&Watch) -> LocalBoxFuture<'static, u64>,
) -> (u64, Vec<StuckWorker>) {
    let recorder = Recorder::new();
    let watchdog = Watchdog::builder().without_tracing();
    let watchdog = watchdog.reporter(recorder.clone()).build().unwrap();
    let _guard = watchdog.guard("busy", runtime.handle());
    // Longer than any poll, so only a worker could be reported.
    let watch = watchdog.watch("busy").with_budget(LONG);
    let done = runtime.block_on(load(&watch));
    recorder.settled(&watchdog);
    (done, recorder.stuck_workers())
}

/// Computes for a time, like a poll that holds its worker.
fn compute(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

/// Runs as many tasks as workers. Each computes for `work` and then yields.
async fn yielding(work: Duration, watch: Option<Watch>, time: Duration) -> u64 {
    let end = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for _ in 0..WORKERS {
        let polls = move || async move {
            let mut polls = 0;
            while Instant::now() < end {
                compute(work);
                yield_now().await;
                polls += 1;
            }
            polls
        };
        match &watch {
            None => tasks.spawn(polls()),
            Some(watch) => tasks.spawn(polls().watched(watch)),
        };
    }
    tasks.join_all().await.into_iter().sum()
}

/// Runs tasks of a `LocalSet`, as actix makes them. One poll of the runtime polls up to 61 of these.
async fn in_a_local_set(work: Duration, time: Duration) -> u64 {
    let end = Instant::now() + time;
    let local = LocalSet::new();
    let tasks: Vec<_> = (0..WORKERS)
        .map(|_| {
            local.spawn_local(async move {
                let mut polls = 0;
                while Instant::now() < end {
                    compute(work);
                    yield_now().await;
                    polls += 1;
                }
                polls
            })
        })
        .collect();
    local.await;
    let mut polls = 0;
    for task in tasks {
        polls += task.await.unwrap();
    }
    polls
}

/// Runs pairs of tasks that exchange a message. Each wakes the other into the LIFO slot of its worker.
async fn ping_pong(work: Duration, time: Duration) -> u64 {
    let end = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for _ in 0..WORKERS {
        let (ping, mut pings) = mpsc::unbounded_channel();
        let (pong, mut pongs) = mpsc::unbounded_channel();
        tasks.spawn(async move {
            let mut polls = 0;
            while Instant::now() < end && ping.send(()).is_ok() && pongs.recv().await.is_some() {
                compute(work);
                polls += 1;
            }
            polls
        });
        tasks.spawn(async move {
            let mut polls = 0;
            while pings.recv().await.is_some() {
                compute(work);
                polls += 1;
                if pong.send(()).is_err() {
                    break;
                }
            }
            polls
        });
    }
    tasks.join_all().await.into_iter().sum()
}

/// Runs tasks that only yield.
async fn storm(time: Duration) -> u64 {
    let end = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        tasks.spawn(async move {
            let mut polls = 0;
            while Instant::now() < end {
                yield_now().await;
                polls += 1;
            }
            polls
        });
    }
    tasks.join_all().await.into_iter().sum()
}

/// Runs clients that send requests to a server in the same runtime, as fast as they can.
async fn http(time: Duration) -> u64 {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    let router = Router::new().route("/", get(|| async { "hello" }));
    let serving = tokio::spawn(async move { axum::serve(server, router).await });
    let answered = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..CONNECTIONS {
        clients.spawn(ask(address, Instant::now() + time, Arc::clone(&answered)));
    }
    clients.join_all().await;
    serving.abort();
    answered.load(Ordering::Relaxed)
}

async fn ask(address: SocketAddr, end: Instant, answered: Arc<AtomicU64>) {
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    while Instant::now() < end {
        let request = hyper::Request::get("/").header("host", "localhost");
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        assert!(
            sender
                .send_request(request)
                .await
                .unwrap()
                .status()
                .is_success()
        );
        answered.fetch_add(1, Ordering::Relaxed);
        sender.ready().await.unwrap();
    }
}

/// Runs each load without a stuck worker, and returns the reports.
fn rows(time: Duration, of_storms: Duration) -> Vec<(&'static str, u64, Vec<StuckWorker>)> {
    const MS: Duration = Duration::from_millis(1);
    const HALF_MS: Duration = Duration::from_micros(500);
    const MICROS_300: Duration = Duration::from_micros(300);
    let plain = runtime();
    let large_interval = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .event_interval(1_024)
        .enable_all()
        .build()
        .unwrap();
    type Load = Box<dyn FnOnce(&Watch) -> LocalBoxFuture<'static, u64>>;
    let yields =
        |work: Duration| -> Load { Box::new(move |_| Box::pin(yielding(work, None, time))) };
    let single = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let loads: [(&str, &Runtime, Load); 9] = [
        ("4 ms of work, then yield_now", &plain, yields(4 * MS)),
        (
            "the same, watched",
            &plain,
            Box::new(move |watch| Box::pin(yielding(4 * MS, Some(watch.clone()), time))),
        ),
        (
            "two tasks in ping-pong, 0.5 ms a poll",
            &plain,
            Box::new(move |_| Box::pin(ping_pong(HALF_MS, time))),
        ),
        (
            "event_interval(1024), 0.3 ms a poll",
            &large_interval,
            yields(MICROS_300),
        ),
        ("1 ms of work, then yield_now", &plain, yields(MS)),
        (
            "20 ms of work, then yield_now, watched",
            &plain,
            Box::new(move |watch| Box::pin(yielding(20 * MS, Some(watch.clone()), time))),
        ),
        (
            "4 ms of work, then yield_now, in a LocalSet",
            &single,
            Box::new(move |_| Box::pin(in_a_local_set(4 * MS, time))),
        ),
        (
            "a yield storm",
            &plain,
            Box::new(move |_| Box::pin(storm(of_storms))),
        ),
        (
            "an HTTP load",
            &plain,
            Box::new(move |_| Box::pin(http(of_storms))),
        ),
    ];
    let run = |(name, runtime, load): (&'static str, &Runtime, Load)| {
        let (polls, reports) = reports_under(runtime, load);
        (name, polls, reports)
    };
    loads.into_iter().map(run).collect()
}

fn nothing_is_reported(time: Duration, of_storms: Duration) {
    println!("| polls | made | reports |\n|---|--:|--:|");
    let rows = rows(time, of_storms);
    for (name, polls, reports) in &rows {
        println!("| {name} | {polls} | {} |", reports.len());
    }
    for (name, polls, reports) in &rows {
        assert!(*polls > 0, "{name}");
        assert!(reports.is_empty(), "{name}: {}", reports[0]);
    }
}

#[test]
fn busy_workers_with_short_polls_are_not_reported() {
    nothing_is_reported(Duration::from_secs(3), Duration::from_secs(2));
}

#[test]
#[ignore = "takes three minutes"]
fn busy_workers_over_a_long_time_are_not_reported() {
    nothing_is_reported(Duration::from_secs(6), Duration::from_secs(60));
}

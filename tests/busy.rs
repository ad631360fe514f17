//! Guarded runtimes that are busy and in which nothing is wrong: nothing is reported.
//!
//! The long version takes two minutes:
//!
//! ```sh
//! cargo test --release --test busy -- --ignored --nocapture
//! ```

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use shotclock::Watchdog;
use shotclock::testing::Recorder;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::{JoinSet, yield_now};

const WORKERS: usize = 2;
const TASKS: usize = 64;
const CONNECTIONS: usize = 16;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .unwrap()
}

/// What is reported while `load` runs in a guarded runtime; it says how much it did.
fn reports_under(load: impl Future<Output = u64>) -> (u64, usize) {
    let recorder = Recorder::new();
    let watchdog = Watchdog::builder().without_tracing();
    let watchdog = watchdog.reporter(recorder.clone()).build().unwrap();
    let runtime = runtime();
    let _guard = watchdog.guard("busy", runtime.handle());
    let done = runtime.block_on(load);
    recorder.settled(&watchdog);
    (done, recorder.stuck_workers().len())
}

/// Tasks that do nothing but yield.
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

/// Clients that ask a server in the same runtime as often as they can.
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

fn nothing_is_reported(time: Duration) {
    let (polls, reports) = reports_under(storm(time));
    println!("{time:?} of a yield storm: {polls} polls, {reports} reports");
    assert_eq!(reports, 0);
    let (answers, reports) = reports_under(http(time));
    println!("{time:?} of an HTTP load: {answers} answers, {reports} reports");
    assert_eq!(reports, 0);
    assert!(polls > 0 && answers > 0);
}

#[test]
fn a_busy_runtime_is_not_stuck() {
    nothing_is_reported(Duration::from_secs(2));
}

#[test]
#[ignore = "takes two minutes"]
fn a_runtime_that_is_busy_for_a_minute_is_not_stuck() {
    nothing_is_reported(Duration::from_secs(60));
}

//! No report, metric or page contains the content of a request, unless the program made a name of it. Paths can be left out.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt::Debug;
use std::fs::File;
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Request, Response};
use http_body_util::BodyExt as _;
use shotclock::page::Page;
use shotclock::prometheus::{self, Exporter};
use shotclock::{Cause, Phase, SlowPoll, WatchLayer, Watchdog, WatchdogBuilder};
use tower::{Layer as _, Service, ServiceExt as _, service_fn};

const SECRET: &str = "hunter2";
const PATIENCE: Duration = Duration::from_secs(60);

fn watchdog(
    set_up: impl FnOnce(WatchdogBuilder) -> WatchdogBuilder,
) -> (Watchdog, Receiver<SlowPoll>) {
    let (tx, reports) = mpsc::channel();
    let report = move |slow: &SlowPoll| drop(tx.send(slow.clone()));
    let builder = Watchdog::builder().without_tracing().on_slow_poll(report);
    (set_up(builder).build().unwrap(), reports)
}

fn exporter() -> &'static Exporter {
    static EXPORTER: OnceLock<Exporter> = OnceLock::new();
    EXPORTER.get_or_init(|| prometheus::install("127.0.0.1:0".parse().unwrap()).unwrap())
}

/// Returns all texts of a watchdog and of one report.
fn all_that_is_told(watchdog: &Watchdog, slow: &SlowPoll) -> String {
    assert!(watchdog.flush(PATIENCE));
    let page = Page::new(watchdog);
    let page =
        ["/", "/state.json", "/stacks.folded", "/flight.json"].map(|path| page.answer(path).body);
    let page = page.map(|body| String::from_utf8(body).unwrap()).concat();
    let json = serde_json::to_string(slow).unwrap();
    let (snapshot, culprits) = (watchdog.snapshot(), watchdog.culprits());
    format!(
        "{slow}\n{slow:?}\n{}\n{json}\n{snapshot}\n{culprits}\n{:?}\n{page}\n{}",
        slow.hint(),
        watchdog.health(),
        exporter().render()
    )
}

/// Makes a request with a secret of 7 letters in each of its parts.
fn request(secret: &str) -> Request<Body> {
    Request::post(format!(
        "http://{secret}:{secret}@h/{secret}?token={secret}"
    ))
    .header("authorization", secret)
    .body(Body::from(secret.repeat(100)))
    .unwrap()
}

/// Blocks with the whole request on its stack and in registers.
async fn handle(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    let on_the_stack: [u8; 700] = text.as_bytes().try_into().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    black_box((&parts, &text, &on_the_stack));
    Ok(Response::new(Body::from(text)))
}

/// Returns the response of a service to the request.
async fn answer<S, B>(service: S, secret: &str) -> Bytes
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    B: HttpBody<Data = Bytes, Error: Debug>,
{
    let response = service.oneshot(request(secret)).await.unwrap();
    response.into_body().collect().await.unwrap().to_bytes()
}

/// Returns all texts during and after the request.
fn told(secret: &str, by_path: bool) -> String {
    let (watchdog, reports) = watchdog(|builder| builder);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let service = service_fn(handle);
        let body = if by_path {
            let by = |request: &Request<Body>| Cow::Owned(request.uri().path().to_owned());
            answer(WatchLayer::by(&watchdog, by).layer(service), secret).await
        } else {
            let layer = WatchLayer::new(&watchdog.watch("handle"));
            answer(layer.layer(service), secret).await
        };
        assert!(body.starts_with(secret.as_bytes()));
    });
    let mut all = String::new();
    loop {
        let slow = reports.recv_timeout(PATIENCE).unwrap();
        all += &all_that_is_told(&watchdog, &slow);
        if slow.phase == Phase::Finished {
            return all;
        }
    }
}

#[test]
fn report_contains_no_request_data() {
    let told = told(SECRET, false);
    assert!(told.contains("handle"));
    assert_not_in(&told);
}

/// Shows that the test can fail. It has another secret, because the metrics belong to the process.
#[test]
fn report_contains_the_users_names() {
    assert!(told("letmein", true).contains("letmein"));
}

#[track_caller]
fn assert_not_in(told: &str) {
    let line = told.lines().find(|line| line.contains(SECRET));
    assert_eq!(line, None);
}

#[test]
fn listener_logs_no_request_data() {
    let (watchdog, _) = watchdog(|builder| builder);
    exporter().show_page(&watchdog);
    let ask = |request: &str| {
        let mut stream = TcpStream::connect(exporter().local_addr().unwrap()).unwrap();
        let _ = stream.write_all(request.as_bytes());
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    for path in ["metrics", "debug/shotclock/state.json", SECRET] {
        let methods = ["GET", "POST", SECRET];
        let asked = |method| ["localhost", SECRET].map(|host| (method, host));
        for (method, host) in methods.into_iter().flat_map(asked) {
            let request = format!(
                "{method} /{path}?{SECRET} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 7\r\n\r\n{SECRET}"
            );
            let answer = ask(&request);
            assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
            assert_not_in(&answer);
        }
    }
    let told = ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(told.contains(" 200 "));
    assert_not_in(&told);
}

/// A FIFO whose name is a secret.
struct Fifo(PathBuf);

impl Fifo {
    fn make() -> Self {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("{SECRET}-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        Self(path)
    }

    fn open(&self) -> File {
        File::options()
            .read(true)
            .write(true)
            .open(&self.0)
            .unwrap()
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Returns all texts about a poll that reads from it.
fn told_of_reading(set_up: impl FnOnce(WatchdogBuilder) -> WatchdogBuilder) -> String {
    let (watchdog, reports) = watchdog(set_up);
    let watch = watchdog.watch("reads");
    let fifo = Fifo::make();
    let (mut reader, mut writer) = (fifo.open(), fifo.open());
    let reads = std::thread::spawn(move || {
        let _poll = watch.enter();
        let _ = reader.read(&mut [0; 8]);
    });
    let mut all = String::new();
    // Until a report has the system call, and then until its end.
    loop {
        let slow = reports.recv_timeout(PATIENCE).unwrap();
        all += &all_that_is_told(&watchdog, &slow);
        if matches!(slow.cause, Cause::Blocked(call) if call.name == Some("read")) {
            break;
        }
    }
    writer.write_all(b"x").unwrap();
    reads.join().unwrap();
    while {
        let slow = reports.recv_timeout(PATIENCE).unwrap();
        all += &all_that_is_told(&watchdog, &slow);
        slow.phase != Phase::Finished
    } {}
    all
}

#[test]
fn report_contains_paths_unless_disabled() {
    assert!(told_of_reading(|builder| builder).contains(SECRET));
    let told = told_of_reading(WatchdogBuilder::without_paths);
    assert!(told.contains("blocked in read"));
    assert_not_in(&told);
}

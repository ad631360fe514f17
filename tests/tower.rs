//! Watched services: in tower's test utilities, and behind real servers.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::borrow::Cow;
use std::convert::Infallible;
use std::future::{Future, pending, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request};
use axum::http::Response;
use axum::routing::get;
use common::failure_of;
use futures::{FutureExt as _, StreamExt as _, stream};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use shotclock::report::SectionKind;
use shotclock::testing::Recorder;
use shotclock::{Watch, WatchLayer, Watchdog};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tower::{Layer as _, Service, ServiceBuilder, ServiceExt as _, service_fn};
use tower_test::{assert_request_eq, mock};

const SLOW: Duration = Duration::from_millis(30);

fn watchdog() -> Watchdog {
    Watchdog::builder().without_tracing().build().unwrap()
}

fn recorded() -> (Watchdog, Recorder) {
    let recorder = Recorder::new();
    let builder = Watchdog::builder().without_tracing();
    (
        builder.reporter(recorder.clone()).build().unwrap(),
        recorder,
    )
}

fn polls(watch: &Watch) -> u64 {
    watch.stats().polls
}

#[tokio::test]
async fn service_keeps_readiness_and_back_pressure() {
    let watch = watchdog().watch("w");
    let layer = WatchLayer::new(&watch);
    let (mut service, mut handle) = mock::spawn_layer::<&str, &str, _>(layer);
    handle.allow(0);
    assert!(service.poll_ready().is_pending());
    assert!(!service.is_woken());
    handle.allow(1);
    assert!(service.is_woken());
    assert!(service.poll_ready().is_ready());
    let response = service.call("in");
    assert_request_eq!(handle, "in").send_response("out");
    assert_eq!(response.await.unwrap(), "out");
    assert!(service.poll_ready().is_pending(), "it was ready for one");
    // Three polls of readiness, the call, and a poll of its future.
    assert_eq!(polls(&watch), 5);
}

#[tokio::test]
async fn service_returns_errors_of_readiness_and_calls() {
    let watch = watchdog().watch("w");
    let layer = WatchLayer::new(&watch);
    let (mut service, mut handle) = mock::spawn_layer::<&str, &str, _>(layer);
    handle.allow(1);
    assert!(service.poll_ready().is_ready());
    let response = service.call("in");
    assert_request_eq!(handle, "in").send_error("out of stock");
    let error: tower::BoxError = response
        .map(|answer: Result<&str, _>| answer.unwrap_err())
        .await;
    assert_eq!(error.to_string(), "out of stock");
    handle.send_error("closing");
    let ready = service.poll_ready();
    assert!(matches!(ready, Poll::Ready(Err(error)) if error.to_string() == "closing"));
}

/// A service that is ready once. Its clones are not ready.
struct ReadyOnce(bool);

impl Clone for ReadyOnce {
    fn clone(&self) -> Self {
        Self(false)
    }
}

impl Service<()> for ReadyOnce {
    type Response = ();
    type Error = Infallible;
    type Future = std::future::Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0 = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        assert!(std::mem::take(&mut self.0), "called before it was ready");
        ready(Ok(()))
    }
}

#[tokio::test]
async fn clone_of_a_ready_service_is_not_ready() {
    let mut service = WatchLayer::new(&watchdog().watch("w")).layer(ReadyOnce(false));
    service.ready().await.unwrap();
    let mut clone = service.clone();
    assert!(!clone.inner().0 && service.inner().0);
    service.call(()).await.unwrap();
    clone.ready().await.unwrap().call(()).await.unwrap();
    assert!(!clone.into_inner().0);
}

/// Blocks in each method of a service.
struct Blocks;

impl Service<()> for Blocks {
    type Response = ();
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<(), Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        thread::sleep(SLOW);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        thread::sleep(SLOW);
        Box::pin(async {
            thread::sleep(SLOW);
            Ok(())
        })
    }
}

#[tokio::test]
async fn service_times_readiness_call_and_future() {
    let (watchdog, recorder) = recorded();
    let line = line!() + 1;
    let layer = WatchLayer::new(&watchdog.watch("blocks"));
    layer.layer(Blocks).oneshot(()).await.unwrap();
    recorder.assert_reported(&watchdog, "blocks");
    let reports = recorder.reports();
    let ended = reports
        .iter()
        .filter(|slow| slow.phase == shotclock::Phase::Finished);
    let kinds: Vec<_> = ended.map(|slow| slow.kind).collect();
    assert_eq!(
        kinds,
        [SectionKind::Poll, SectionKind::Entered, SectionKind::Poll]
    );
    assert!(reports.iter().all(|slow| slow.location.line() == line));
}

fn name_of(request: &&'static str) -> Cow<'static, str> {
    match *request {
        "panics" => panic!("a classifier that panics"),
        name => name.into(),
    }
}

#[tokio::test]
async fn classifier_names_the_watch_and_may_panic() {
    let watchdog = watchdog();
    let layer = WatchLayer::by(&watchdog, name_of);
    let service = layer.layer(service_fn(|_: &'static str| ready(Ok::<_, Infallible>(()))));
    for name in ["a", "b", "a", "panics"] {
        service.clone().oneshot(name).await.unwrap();
    }
    let count = |name: &str| watchdog.snapshot().get(name).map(|stats| stats.polls);
    // The call, and a poll of its future.
    assert_eq!((count("a"), count("b")), (Some(4), Some(2)));
    assert_eq!(
        (count("unclassified"), count("poll_ready")),
        (Some(2), Some(4))
    );
}

#[tokio::test]
async fn watches_of_a_classifier_are_bounded() {
    let builder = Watchdog::builder().without_tracing().max_watches(3);
    let watchdog = builder.build().unwrap();
    let layer = WatchLayer::by(&watchdog, |number: &u32| Cow::from(number.to_string()));
    let service = layer.layer(service_fn(|_: u32| ready(Ok::<_, Infallible>(()))));
    for number in 0..1_000 {
        service.clone().oneshot(number).await.unwrap();
    }
    let snapshot = watchdog.snapshot();
    let names: Vec<_> = snapshot
        .iter()
        .map(|stats| stats.watch.to_string())
        .collect();
    assert_eq!(names.len(), 4, "{names:?}");
    // All but two, which got the last names beside `poll_ready`.
    assert_eq!(
        snapshot.get("other").map(|stats| stats.polls),
        Some(2 * 998)
    );
}

#[tokio::test]
async fn call_that_panics_is_counted() {
    let watch = watchdog().watch("w");
    let service = WatchLayer::new(&watch).layer(service_fn(|(): ()| async {
        if true {
            panic!("in its future");
        }
        Ok::<_, Infallible>(())
    }));
    assert_eq!(failure_of(service.oneshot(())).await, "in its future");
    assert_eq!((polls(&watch), watch.stats().panicked_polls), (3, 1));
}

/// A response of another type.
#[derive(Debug, PartialEq)]
struct Own;

#[tokio::test]
async fn plain_layer_returns_any_response() {
    let watch = watchdog().watch("w");
    let service = ServiceBuilder::new()
        .layer(WatchLayer::new(&watch).plain())
        .service_fn(|(): ()| ready(Ok::<_, Infallible>(Own)));
    assert_eq!(service.oneshot(()).await.unwrap(), Own);
}

// Bodies -------------------------------------------------------------------------------------------

/// A response of three parts, of which the second takes long.
fn three_pieces() -> Response<StreamBody<impl futures::Stream<Item = Piece>>> {
    let pieces = stream::iter(["one ", "two ", "three"]).map(|piece| {
        if piece.starts_with("two") {
            thread::sleep(SLOW);
        }
        Ok(Frame::data(Bytes::from(piece)))
    });
    Response::new(StreamBody::new(pieces))
}

type Piece = Result<Frame<Bytes>, Infallible>;

#[tokio::test]
async fn body_is_watched_to_its_end() {
    let (watchdog, recorder) = recorded();
    let watch = watchdog.watch("download");
    let service = service_fn(|(): ()| ready(Ok::<_, Infallible>(three_pieces())));
    let response = WatchLayer::new(&watch).layer(service).oneshot(()).await;
    assert_eq!(polls(&watch), 3);
    let body = BodyExt::collect(response.unwrap().into_body()).await;
    let body = body.unwrap().to_bytes();
    assert_eq!(body, "one two three");
    // Three parts and the end.
    assert_eq!(polls(&watch), 7);
    assert_eq!(
        recorder.assert_reported(&watchdog, "download").kind,
        SectionKind::Poll
    );
}

#[tokio::test]
async fn body_keeps_its_size_hint_and_end() {
    use hyper::body::Body as _;
    let watch = watchdog().watch("w");
    let service = service_fn(|text: &'static str| {
        ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(
            text,
        ))))
    });
    let service = WatchLayer::new(&watch).layer(service);
    let body = service.clone().oneshot("hello").await.unwrap().into_body();
    assert_eq!(
        (body.size_hint().exact(), body.is_end_stream()),
        (Some(5), false)
    );
    assert!(
        service
            .oneshot("")
            .await
            .unwrap()
            .into_body()
            .is_end_stream()
    );
}

#[tokio::test]
async fn endless_body_can_be_dropped() {
    let watch = watchdog().watch("w");
    let service = service_fn(|(): ()| {
        let body = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        ready(Ok::<_, Infallible>(Response::new(body)))
    });
    let response = WatchLayer::new(&watch).layer(service).oneshot(()).await;
    let mut body = response.unwrap().into_body();
    assert!(body.frame().now_or_never().is_none());
    drop(body);
    assert_eq!((polls(&watch), watch.stats().in_flight), (4, 0));
}

// Servers ------------------------------------------------------------------------------------------

fn route(request: &Request) -> Cow<'static, str> {
    let path = request.extensions().get::<MatchedPath>();
    path.map_or("unmatched".into(), |path| path.as_str().to_owned().into())
}

/// Returns the whole response of a server to a request without a body.
async fn fetch(server: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn axum_server_has_a_watch_for_each_route() {
    let (watchdog, recorder) = recorded();
    let router = Router::new()
        .route("/hello/{name}", get(|| async { "hello" }))
        .route("/download", get(|| async { three_pieces().map(Body::new) }))
        .fallback(|| async { "nothing here" })
        .layer(WatchLayer::by(&watchdog, route));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    let serving = tokio::spawn(async { axum::serve(listener, router).await });
    for name in ["ann", "bob"] {
        let answer = fetch(server, &format!("/hello/{name}")).await;
        assert!(answer.contains("content-length: 5\r\n") && answer.ends_with("\r\n\r\nhello"));
    }
    assert!(fetch(server, "/download").await.contains("three"));
    assert!(fetch(server, "/elsewhere").await.ends_with("nothing here"));
    let slow = recorder.assert_reported(&watchdog, "/download");
    assert!(slow.elapsed > watchdog.watch("/download").budget());
    let snapshot = watchdog.snapshot();
    let polled = |name: &str| snapshot.get(name).map_or(0, |stats| stats.polls);
    assert!(polled("/hello/{name}") >= 4 && polled("/download") >= 6 && polled("unmatched") >= 2);
    assert!(snapshot.get("/hello/ann").is_none());
    serving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hyper_server_of_both_protocols_serves_a_watched_service() {
    let watchdog = watchdog();
    let watch = watchdog.watch("hyper");
    let service =
        service_fn(|_: hyper::Request<Incoming>| async { Ok::<_, Infallible>(three_pieces()) });
    let service = WatchLayer::new(&watch).layer(service);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = builder
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    assert!(fetch(server, "/").await.contains("two "));
    assert!(polls(&watch) >= 6);

    let stream = TokioIo::new(TcpStream::connect(server).await.unwrap());
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let request = hyper::Request::get("http://test/")
        .body(Full::<Bytes>::default())
        .unwrap();
    let response = client.send_request(request).await.unwrap();
    assert_eq!(response.version(), hyper::Version::HTTP_2);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "one two three");
    assert!(watch.stats().slow_polls >= 2);
    drop(client);
    connection.abort();
    serving.abort();
}

#[tokio::test]
async fn dropped_call_leaves_no_poll_in_flight() {
    let watch = watchdog().watch("w");
    let service = service_fn(|(): ()| pending::<Result<(), Infallible>>());
    let call = WatchLayer::new(&watch).layer(service).oneshot(());
    assert!(
        tokio::time::timeout(Duration::from_millis(1), call)
            .await
            .is_err()
    );
    assert_eq!(watch.stats().in_flight, 0);
}

//! Audits of each call of a service.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::routing::get;
use common::failure_of;
use futures::FutureExt as _;
use futures::future::{BoxFuture, pending};
use shotclock::assert_poll_budget;
use shotclock::testing::audit_service;
use tokio::task::yield_now;
use tower::{Service, ServiceExt as _};

const BUDGET: Duration = Duration::from_millis(5);
const AMPLE: Duration = Duration::from_secs(30);
const SLOW: Duration = Duration::from_millis(30);

fn router() -> Router {
    let blocks = || async {
        yield_now().await;
        thread::sleep(SLOW);
        "at last"
    };
    Router::new()
        .route("/hello", get(|| async { "hello" }))
        .route("/blocks", get(blocks))
}

fn request(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn oneshot_of_a_router_with_a_slow_poll_fails() {
    let app = audit_service(router()).budget(BUDGET);
    let failure = failure_of(app.clone().oneshot(request("/blocks"))).await;
    assert!(failure.contains("budget 5ms\n"), "{failure}");
    assert!(
        failure.contains("asserted   tests/audit_service.rs:"),
        "{failure}"
    );
    let audits = app.audits();
    assert_eq!((audits.len(), audits[0].slow_polls(BUDGET)), (1, 1));
    let app = audit_service(router()).budget(AMPLE);
    let response = app.clone().oneshot(request("/hello")).await.unwrap();
    assert_eq!(response.status(), 200);
    // Without the helper, for a single call.
    let response = assert_poll_budget!(AMPLE, router().oneshot(request("/hello"))).await;
    assert_eq!(response.unwrap().status(), 200);
}

#[tokio::test]
async fn audit_service_makes_an_audit_for_each_call() {
    let app = audit_service(router());
    for path in ["/hello", "/blocks", "/hello"] {
        app.clone().oneshot(request(path)).await.unwrap();
    }
    let audits = app.audits();
    assert_eq!(
        audits
            .iter()
            .map(|audit| audit.slow_polls(2 * BUDGET))
            .collect::<Vec<_>>(),
        [0, 1, 0]
    );
    // The call and the polls of its future.
    assert_eq!((audits[1].polls(), audits[1].yields()), (3, 1));
    assert!(app.audits().is_empty(), "they were handed over");
}

/// Blocks in the call, before it returns the future.
#[derive(Clone)]
struct BlocksInCall;

impl Service<()> for BlocksInCall {
    type Response = ();
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        thread::sleep(SLOW);
        Box::pin(pending())
    }
}

#[tokio::test]
async fn audit_service_covers_the_call_and_dropped_futures() {
    let mut app = audit_service(BlocksInCall);
    let mut call = app.ready().await.unwrap().call(());
    assert!((&mut call).now_or_never().is_none());
    assert!(app.audits().is_empty(), "it is not over");
    drop(call);
    let audit = app.audits().pop().unwrap();
    assert_eq!(
        (audit.polls(), audit.yields(), audit.slow_polls(BUDGET)),
        (2, 1, 1)
    );
    assert!(audit.each().next().unwrap().active > BUDGET);

    let mut app = app.budget(BUDGET);
    let call = async { drop(app.ready().await.unwrap().call(())) };
    assert!(failure_of(call).await.starts_with("poll 1 of 1 took "));
}

/// Panics in the future, after a slow poll.
#[tokio::test]
async fn audit_service_with_a_panicking_call_keeps_its_message() {
    let panics = tower::service_fn(|()| async {
        thread::sleep(SLOW);
        if true {
            panic!("its own words");
        }
        Ok::<(), Infallible>(())
    });
    let app = audit_service(panics).budget(BUDGET);
    assert_eq!(failure_of(app.clone().oneshot(())).await, "its own words");
    assert_eq!(app.audits()[0].slow_polls(BUDGET), 1);
}

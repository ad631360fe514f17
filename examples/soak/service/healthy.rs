//! Routes that hold no worker: the watchdog must report none of their polls.

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use futures::StreamExt as _;
use shotclock::{OffloadError, OffloadExt as _};
use tokio::task::{JoinSet, yield_now};
use tokio::time::sleep;

use super::app::{App, Route};
use super::harm;
use super::stall::compute;
use crate::sabotage::Sabotage;

pub(super) fn routes() -> Vec<Route> {
    vec![
        ("/hello", get(hello)),
        ("/work", get(work)),
        ("/heavy", get(heavy)),
        ("/yielding", get(yielding)),
        ("/offload", get(offload)),
        ("/offloaded", get(offloaded)),
        ("/burst", get(burst)),
        ("/pieces", get(pieces)),
        ("/known/{polls}", get(known)),
        ("/forever", get(forever)),
        ("/panic", get(panic)),
        ("/allowed", get(allowed)),
    ]
}

type Answer = Result<&'static str, StatusCode>;

fn answer<T>(offloaded: Result<T, OffloadError>) -> Answer {
    offloaded.map_or(Err(StatusCode::INTERNAL_SERVER_ERROR), |_| Ok("done\n"))
}

async fn hello(State(app): State<Arc<App>>) -> &'static str {
    harm::do_harm(&app);
    sleep(Duration::from_millis(1)).await;
    "hello\n"
}

async fn work() -> &'static str {
    compute(Duration::from_micros(300));
    "worked\n"
}

/// Computes for more than half of the budget. The flight record keeps such polls, and on a busy host they often end
/// late.
async fn heavy() -> &'static str {
    compute(Duration::from_millis(6));
    "worked hard\n"
}

/// Yields half by time, half by count. An iteration takes some microseconds.
async fn yielding() -> &'static str {
    let mut by_time = shotclock::yield_after(Duration::from_micros(500));
    let mut by_count = shotclock::yield_every(50);
    for _ in 0..500 {
        compute(Duration::from_micros(2));
        by_time.tick().await;
    }
    for _ in 0..500 {
        compute(Duration::from_micros(2));
        by_count.tick().await;
    }
    "yielded\n"
}

async fn offload(State(app): State<Arc<App>>) -> Answer {
    answer(app.lane.run(|| compute(Duration::from_millis(1))).await)
}

async fn offloaded(State(app): State<Arc<App>>) -> Answer {
    let in_pieces = async {
        for _ in 0..5 {
            compute(Duration::from_micros(100));
            yield_now().await;
        }
    };
    let watched = app.spots.offloaded.watch(in_pieces);
    answer(watched.offloaded(&app.lane).await)
}

/// Spawns many short tasks.
async fn burst(State(app): State<Arc<App>>) -> &'static str {
    let mut tasks = JoinSet::new();
    for _ in 0..100 {
        let short = async {
            yield_now().await;
            compute(Duration::from_micros(2));
        };
        tasks.spawn(app.spots.burst.watch(short));
    }
    tasks.join_all().await;
    "all over\n"
}

/// Sends a body in pieces, some of them late.
async fn pieces(State(app): State<Arc<App>>) -> Body {
    let pieces = futures::stream::iter(0..10).then(|number| async move {
        match number % 3 {
            0 => sleep(Duration::from_millis(1)).await,
            _ => yield_now().await,
        }
        Ok::<_, std::convert::Infallible>("piece\n")
    });
    Body::from_stream(app.spots.pieces.watch(pieces))
}

/// Makes the number of polls that the client requests.
async fn known(State(app): State<Arc<App>>, Path(polls): Path<u64>) -> &'static str {
    let mut left = polls;
    let pass = poll_fn(|_| {
        left -= 1;
        match left {
            0 => Poll::Ready(()),
            _ => Poll::Pending,
        }
    });
    let mut pass = pin!(app.spots.known.watch(pass));
    while pass
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
        .is_pending()
    {}
    "polled\n"
}

/// Waits until the client cancels the request.
async fn forever() {
    let _some_memory = vec![7_u8; 16 << 10];
    pending().await
}

/// Panics, so the client loses its connection.
async fn panic() {
    yield_now().await;
    std::panic::resume_unwind(Box::new("on purpose"))
}

/// Makes a declared exception, which the watchdog counts and does not report.
async fn allowed(State(app): State<Arc<App>>) -> &'static str {
    let longest = match app.sabotage {
        Some(Sabotage::Declared) => Duration::from_millis(20),
        _ => Duration::from_secs(5),
    };
    let declared = async {
        let _allowed = shotclock::allow_blocking("on purpose", longest);
        std::thread::sleep(Duration::from_millis(50));
    };
    app.spots.allowed.watch(declared).await;
    "as declared\n"
}

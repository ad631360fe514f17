//! The page as a router for axum.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::Page;
use crate::watchdog::Watchdog;

/// The page as a router, to be nested where you want it (feature `axum`).
///
/// It answers on the runtime's blocking pool. While every worker of the runtime is stuck it does not
/// answer at all: for that, serve it from a thread of its own.
///
/// It answers whatever the `Host` of a request is: which names your server has, only you know. [The
/// module](crate::page) says what follows from that.
///
/// # Examples
///
/// ```
/// use axum::Router;
/// use shotclock::Watchdog;
///
/// let watchdog = Watchdog::builder().build()?;
/// // Not for everybody: see the module.
/// let app: Router = Router::new().nest("/debug/shotclock", shotclock::page::router(&watchdog));
/// # drop(app);
/// # Ok::<(), shotclock::Error>(())
/// ```
pub fn router<S: Clone + Send + Sync + 'static>(watchdog: &Watchdog) -> Router<S> {
    Router::new()
        .route("/", get(answer))
        .route("/{*path}", get(answer))
        .with_state(Page::new(watchdog))
}

async fn answer(State(page): State<Page>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let answered = tokio::task::spawn_blocking(move || page.answer(&path)).await;
    match answered {
        Ok(answer) => {
            let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
            let kind = [(header::CONTENT_TYPE, answer.content_type)];
            (status, kind, answer.body).into_response()
        }
        // The runtime shuts down.
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

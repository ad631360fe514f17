//! Serves the page through an axum router.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::Page;
use crate::watchdog::Watchdog;

/// Makes an axum router of the page, to nest in yours (feature `axum`).
///
/// It answers on the runtime's blocking pool, and not at all while every worker of the runtime is stuck. To avoid that, serve
/// the page from a separate thread.
///
/// It answers requests for any `Host`, because only you know the names of your server. [The module](crate::page) explains the
/// risk.
///
/// # Examples
///
/// ```
/// use axum::Router;
/// use shotclock::Watchdog;
///
/// let watchdog = Watchdog::builder().build()?;
/// // Restrict the access: see the module.
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
        // The runtime is shutting down.
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

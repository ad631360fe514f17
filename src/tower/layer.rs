//! The layer.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;

use tower_layer::Layer;

use super::make_watch::{Always, By};
use super::response::{Plain, Whole};
use super::service::WatchService;
use crate::watch::Watch;
use crate::watchdog::Watchdog;

/// Watches a [`tower::Service`](tower_service::Service): everything in which it holds its thread.
///
/// That is `poll_ready`, the call itself before there is a future, the polls of the future, and those of
/// the body of an HTTP response, which goes on long after the future is done. Each counts as a poll of
/// the watch. Readiness and back-pressure are those of the service.
///
/// # Examples
///
/// ```
/// use shotclock::{WatchLayer, Watchdog};
/// use std::convert::Infallible;
/// use tower::{ServiceBuilder, ServiceExt as _};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let watchdog = Watchdog::builder().build()?;
/// let checkout = watchdog.watch("checkout");
///
/// let service = ServiceBuilder::new()
///     .layer(WatchLayer::new(&checkout))
///     .service_fn(|order: u32| async move { Ok::<_, Infallible>(order + 1) });
///
/// assert_eq!(service.oneshot(7).await?, 8);
/// // It was ready, was called, and its future was polled.
/// assert_eq!(checkout.stats().polls, 3);
/// # Ok(())
/// # }
/// ```
///
/// An axum `Router`, each route under a watch of its own:
///
/// ```
/// use axum::{Router, extract::{MatchedPath, Request}, routing::get};
/// use shotclock::{WatchLayer, Watchdog};
/// use std::borrow::Cow;
///
/// fn route(request: &Request) -> Cow<'static, str> {
///     request.extensions().get::<MatchedPath>().map_or("unmatched".into(), |path| path.as_str().to_owned().into())
/// }
///
/// # fn main() -> Result<(), shotclock::Error> {
/// let watchdog = Watchdog::builder().build()?;
/// let router: Router = Router::new()
///     .route("/hello/{name}", get(|| async { "hello" }))
///     .layer(WatchLayer::by(&watchdog, route));
/// # drop(router);
/// # Ok(())
/// # }
/// ```
///
/// # Cancel safety
///
/// As cancel safe as the service.
///
/// # Non-guarantees
///
/// What the service spawns is not watched, nor what waits between polls.
pub struct WatchLayer<C, K = Whole> {
    choice: C,
    location: &'static Location<'static>,
    finish: PhantomData<fn() -> K>,
}

impl WatchLayer<Always> {
    /// Watches every request under one watch.
    ///
    /// The place of this call is what a report names as the location.
    #[track_caller]
    pub fn new(watch: &Watch) -> Self {
        Self::choosing(Always::new(watch))
    }
}

impl<Classify> WatchLayer<By<Classify>> {
    /// Watches each request under the watch that `classify` names.
    ///
    /// The number of names is bounded by the watchdog
    /// ([`WatchdogBuilder::max_watches`](crate::WatchdogBuilder::max_watches)): past its limit, requests go under the
    /// watch `other`. Where the classifier panics, they go under `unclassified`; the panic hook has
    /// printed its message by then. `poll_ready` goes under a watch of that name, because there is no
    /// request yet.
    ///
    /// A `Cow` that is borrowed costs no allocation.
    #[track_caller]
    pub fn by<Request>(watchdog: &Watchdog, classify: Classify) -> Self
    where
        Classify: Fn(&Request) -> Cow<'static, str>,
    {
        Self::choosing(By::new(watchdog, classify))
    }
}

impl<C> WatchLayer<C> {
    #[track_caller]
    fn choosing(choice: C) -> Self {
        Self {
            choice,
            location: Location::caller(),
            finish: PhantomData,
        }
    }

    /// Passes responses on as they are: for types of your own, which are not known to have a body or
    /// none. The body of an HTTP response is not watched then.
    pub fn plain(self) -> WatchLayer<C, Plain> {
        WatchLayer {
            choice: self.choice,
            location: self.location,
            finish: PhantomData,
        }
    }
}

impl<S, C: Clone, K> Layer<S> for WatchLayer<C, K> {
    type Service = WatchService<S, C, K>;

    fn layer(&self, inner: S) -> Self::Service {
        WatchService::new(inner, self.choice.clone(), self.location)
    }
}

impl<C: Clone, K> Clone for WatchLayer<C, K> {
    fn clone(&self) -> Self {
        Self {
            choice: self.choice.clone(),
            ..*self
        }
    }
}

impl<C: fmt::Debug, K> fmt::Debug for WatchLayer<C, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchLayer")
            .field("choice", &self.choice)
            .finish_non_exhaustive()
    }
}

//! The layer that watches a service.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;

use tower_layer::Layer;

use super::response::{Unchanged, WatchBody};
use super::select_watch::{ByClassifier, OneWatch};
use super::service::WatchService;
use crate::watch::Watch;
use crate::watchdog::Watchdog;

/// Watches a [`tower::Service`](tower_service::Service).
///
/// It times `poll_ready`, the call that returns the future, the polls of the future, and the polls of the body of an HTTP
/// response. Each counts as a poll of the watch. Readiness and back-pressure are those of the service.
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
/// // `poll_ready`, the call, and one poll of its future.
/// assert_eq!(checkout.stats().polls, 3);
/// # Ok(())
/// # }
/// ```
///
/// An axum `Router` with a watch for each route:
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
/// The service is as cancel safe as the wrapped one.
///
/// # Non-guarantees
///
/// Tasks that the service spawns are not watched. The time between two polls is not part of a poll.
pub struct WatchLayer<C = OneWatch, W = WatchBody> {
    select: C,
    location: &'static Location<'static>,
    wrap: PhantomData<fn() -> W>,
}

impl WatchLayer {
    /// Watches all requests under one watch. A report names the line of this call.
    #[track_caller]
    pub fn new(watch: &Watch) -> Self {
        Self::selecting(OneWatch::new(watch))
    }
}

impl<Classify> WatchLayer<ByClassifier<Classify>> {
    /// Watches each request under the watch that `classify` names.
    ///
    /// The watchdog bounds the number of names
    /// ([`WatchdogBuilder::max_watches`](crate::WatchdogBuilder::max_watches)). Requests past its limit share the watch
    /// `other`. If the classifier panics, the request counts under `unclassified`, and the panic hook has printed the
    /// message. The watch `poll_ready` counts the polls of readiness, before which there is no request.
    ///
    /// A borrowed `Cow` costs no allocation.
    #[track_caller]
    pub fn by<Request>(watchdog: &Watchdog, classify: Classify) -> Self
    where
        Classify: Fn(&Request) -> Cow<'static, str>,
    {
        Self::selecting(ByClassifier::new(watchdog, classify))
    }
}

impl<C> WatchLayer<C> {
    #[track_caller]
    fn selecting(select: C) -> Self {
        Self {
            select,
            location: Location::caller(),
            wrap: PhantomData,
        }
    }

    /// Returns responses unchanged, and watches no body.
    ///
    /// Services with a response type of your own need it, because the layer does not know whether the type has a body.
    pub fn plain(self) -> WatchLayer<C, Unchanged> {
        WatchLayer {
            select: self.select,
            location: self.location,
            wrap: PhantomData,
        }
    }
}

impl<S, C: Clone, W> Layer<S> for WatchLayer<C, W> {
    type Service = WatchService<S, C, W>;

    fn layer(&self, inner: S) -> Self::Service {
        WatchService::new(inner, self.select.clone(), self.location)
    }
}

impl<C: Clone, W> Clone for WatchLayer<C, W> {
    fn clone(&self) -> Self {
        Self {
            select: self.select.clone(),
            ..*self
        }
    }
}

impl<C: fmt::Debug, W> fmt::Debug for WatchLayer<C, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchLayer")
            .field("select", &self.select)
            .finish_non_exhaustive()
    }
}

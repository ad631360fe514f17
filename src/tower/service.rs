//! The service that `WatchLayer` makes.

use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;
use std::task::{Context, Poll};

use tower_service::Service;

use super::future::WatchFuture;
use super::response::{WatchBody, WrapResponse};
use super::select_watch::{OneWatch, SelectWatch};
use crate::poll_timer::{PollTimer, Section};

/// Times the work of a service: readiness, calls, the polls of their futures, and of the bodies of HTTP responses.
/// [`WatchLayer`](super::WatchLayer) makes it.
pub struct WatchService<S, C = OneWatch, W = WatchBody> {
    inner: S,
    select: C,
    location: &'static Location<'static>,
    wrap: PhantomData<fn() -> W>,
}

impl<S, C, W> WatchService<S, C, W> {
    pub(super) fn new(inner: S, select: C, location: &'static Location<'static>) -> Self {
        Self {
            inner,
            select,
            location,
            wrap: PhantomData,
        }
    }

    /// Returns the wrapped service.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Returns the wrapped service, mutably.
    pub fn inner_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the wrapped service by value.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, C, W, Request> Service<Request> for WatchService<S, C, W>
where
    S: Service<Request>,
    C: SelectWatch<Request>,
    W: WrapResponse<S::Response>,
{
    type Response = W::Response;
    type Error = S::Error;
    type Future = WatchFuture<S::Future, W>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        let timer = PollTimer::begin(self.select.ready(), self.location, Section::POLL);
        let ready = self.inner.poll_ready(cx);
        timer.end();
        ready
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let watch = self.select.of(&request);
        // The call holds the worker before it returns the future.
        let timer = PollTimer::begin(&watch, self.location, Section::ENTERED);
        let future = self.inner.call(request);
        timer.end();
        WatchFuture::new(future, watch, self.location)
    }
}

/// A clone is ready only if the inner service's clone is.
impl<S: Clone, C: Clone, W> Clone for WatchService<S, C, W> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.select.clone(), self.location)
    }
}

impl<S: fmt::Debug, C: fmt::Debug, W> fmt::Debug for WatchService<S, C, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchService")
            .field("inner", &self.inner)
            .field("select", &self.select)
            .finish_non_exhaustive()
    }
}

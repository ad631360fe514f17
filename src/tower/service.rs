//! The watched service.

use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;
use std::task::{Context, Poll};

use tower_service::Service;

use super::future::WatchFuture;
use super::make_watch::Choose;
use super::response::{Finish, Whole};
use crate::poll_timer::{PollTimer, Section};

/// A service whose work on its thread is timed: readiness, calls, the polls of their futures, and of
/// the bodies of HTTP responses. Made by [`WatchLayer`](super::WatchLayer).
pub struct WatchService<S, C, K = Whole> {
    inner: S,
    choice: C,
    location: &'static Location<'static>,
    finish: PhantomData<fn() -> K>,
}

impl<S, C, K> WatchService<S, C, K> {
    pub(super) fn new(inner: S, choice: C, location: &'static Location<'static>) -> Self {
        Self {
            inner,
            choice,
            location,
            finish: PhantomData,
        }
    }

    /// What was wrapped.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// What was wrapped, to be changed in place.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// What was wrapped.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, C, K, Request> Service<Request> for WatchService<S, C, K>
where
    S: Service<Request>,
    C: Choose<Request>,
    K: Finish<S::Response>,
{
    type Response = K::Response;
    type Error = S::Error;
    type Future = WatchFuture<S::Future, K>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        let possession = PollTimer::begin(self.choice.ready(), self.location, Section::POLL);
        let ready = self.inner.poll_ready(cx);
        possession.end();
        ready
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let watch = self.choice.of(&request);
        // What is done before there is a future holds the worker as well.
        let possession = PollTimer::begin(&watch, self.location, Section::ENTERED);
        let future = self.inner.call(request);
        possession.end();
        WatchFuture::new(future, watch, self.location)
    }
}

/// Readiness is the inner service's, and its own clone says what that is worth.
impl<S: Clone, C: Clone, K> Clone for WatchService<S, C, K> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.choice.clone(), self.location)
    }
}

impl<S: fmt::Debug, C: fmt::Debug, K> fmt::Debug for WatchService<S, C, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchService")
            .field("inner", &self.inner)
            .field("choice", &self.choice)
            .finish_non_exhaustive()
    }
}

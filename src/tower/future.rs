//! The future of a watched call.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::response::Finish;
use crate::watch::Watch;
use crate::watched::Watched;

pin_project! {
    /// The future of a call whose polls are timed. Made by [`WatchService`](super::WatchService).
    #[must_use = "futures do nothing unless they are polled"]
    pub struct WatchFuture<F, K> {
        #[pin]
        inner: Watched<F>,
        location: &'static Location<'static>,
        finish: PhantomData<fn() -> K>,
    }
}

impl<F, K> WatchFuture<F, K> {
    pub(super) fn new(future: F, watch: Watch, location: &'static Location<'static>) -> Self {
        Self {
            inner: Watched::new(future, watch, location),
            location,
            finish: PhantomData,
        }
    }
}

impl<F, K, Response, Error> Future for WatchFuture<F, K>
where
    F: Future<Output = Result<Response, Error>>,
    K: Finish<Response>,
{
    type Output = Result<K::Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let output = ready!(this.inner.as_mut().poll(cx));
        let watch = this.inner.watch();
        Poll::Ready(output.map(|response| K::finish(response, watch, this.location)))
    }
}

impl<F, K> fmt::Debug for WatchFuture<F, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchFuture")
            .field("watch", &self.inner.watch().name())
            .finish_non_exhaustive()
    }
}

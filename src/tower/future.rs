//! The future of a call to a watched service.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::response::WrapResponse;
use crate::watch::Watch;
use crate::watched::Watched;

pin_project! {
    /// Times the polls of a call's future. [`WatchService`](super::WatchService) makes it.
    #[must_use = "futures do nothing unless they are polled"]
    pub struct WatchFuture<F, W> {
        #[pin]
        inner: Watched<F>,
        location: &'static Location<'static>,
        wrap: PhantomData<fn() -> W>,
    }
}

impl<F, W> WatchFuture<F, W> {
    pub(super) fn new(future: F, watch: Watch, location: &'static Location<'static>) -> Self {
        Self {
            inner: Watched::new(future, watch, location),
            location,
            wrap: PhantomData,
        }
    }
}

impl<F, W, Response, Error> Future for WatchFuture<F, W>
where
    F: Future<Output = Result<Response, Error>>,
    W: WrapResponse<Response>,
{
    type Output = Result<W::Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let output = ready!(this.inner.as_mut().poll(cx));
        let watch = this.inner.watch();
        Poll::Ready(output.map(|response| W::wrap(response, watch, this.location)))
    }
}

impl<F, W> fmt::Debug for WatchFuture<F, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchFuture")
            .field("watch", &self.inner.watch().name())
            .finish_non_exhaustive()
    }
}

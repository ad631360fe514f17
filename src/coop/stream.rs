//! Streams that yield between their items.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::stream::{FusedStream, Stream};
use pin_project_lite::pin_project;

use super::{Count, Pace, Rule, Slice, yield_after, yield_every};

/// Adds `.yield_every(n)` and `.yield_after(slice)` to streams.
///
/// A stream may always have an item, such as a decoder over a full buffer or a merge of busy channels. Then
/// `while let Some(item) = stream.next().await` never yields.
pub trait YieldExt: Stream + Sized {
    /// Yields after every `n` items, as [`yield_every`](crate::yield_every()) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::{StreamExt as _, stream};
    /// use shotclock::YieldExt as _;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let mut numbers = stream::iter(0..1_000).yield_every(100);
    /// let mut sum = 0;
    /// while let Some(number) = numbers.next().await {
    ///     sum += number;
    /// }
    /// assert_eq!(sum, 499_500);
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If `n` is 0.
    ///
    /// # Cancel safety
    ///
    /// No item is lost, because the stream yields before it polls the wrapped stream.
    #[track_caller]
    fn yield_every(self, n: u64) -> Paced<Self, Count> {
        Paced::new(self, yield_every(n))
    }

    /// Yields when the task has run for `slice`, as [`yield_after`](crate::yield_after()) does.
    ///
    /// The time in which the caller processes an item counts too.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::{StreamExt as _, stream};
    /// use shotclock::YieldExt as _;
    /// use std::time::Duration;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let pages = stream::iter(["a", "b", "c"]);
    /// let words: Vec<_> = pages.yield_after(Duration::from_micros(500)).collect().await;
    /// assert_eq!(words, ["a", "b", "c"]);
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// No item is lost, because the stream yields before it polls the wrapped stream.
    ///
    /// # Non-guarantees
    ///
    /// A stream may work for long before it has an item, such as a filter that passes few items. Use a pace in its source
    /// then.
    fn yield_after(self, slice: Duration) -> Paced<Self, Slice> {
        Paced::new(self, yield_after(slice))
    }
}

impl<S: Stream> YieldExt for S {}

pin_project! {
    /// Yields between the items of a stream. [`YieldExt`] makes it.
    ///
    /// Its items, their order and its `size_hint` are those of the wrapped stream. It is a `FusedStream` or `Unpin` if that
    /// stream is.
    #[must_use = "streams do nothing unless they are polled"]
    #[derive(Clone, Debug)]
    pub struct Paced<S, R = Count> {
        #[pin]
        inner: S,
        pace: Pace<R>,
        // Whether the pace has not ticked for the last item yet.
        owes_tick: bool,
    }
}

impl<S, R> Paced<S, R> {
    pub(super) fn new(inner: S, pace: Pace<R>) -> Self {
        Self {
            inner,
            pace,
            owes_tick: false,
        }
    }

    /// Returns the wrapped stream.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Returns the wrapped stream, mutably.
    pub fn inner_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the wrapped stream, pinned and mutable.
    pub fn inner_pin_mut(self: Pin<&mut Self>) -> Pin<&mut S> {
        self.project().inner
    }

    /// Returns the wrapped stream, pinned.
    pub fn inner_pin_ref(self: Pin<&Self>) -> Pin<&S> {
        self.project_ref().inner
    }

    /// Returns the wrapped stream by value.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: Stream, R: Rule> Stream for Paced<S, R> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let this = self.project();
        if *this.owes_tick {
            ready!(this.pace.poll_tick(cx));
            *this.owes_tick = false;
        }
        let item = ready!(this.inner.poll_next(cx));
        *this.owes_tick = item.is_some();
        Poll::Ready(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.inner.size_hint()
    }
}

impl<S: FusedStream, R: Rule> FusedStream for Paced<S, R> {
    fn is_terminated(&self) -> bool {
        self.inner.is_terminated()
    }
}

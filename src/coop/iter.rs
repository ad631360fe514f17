//! Drives an iterator as a stream that yields.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::stream::{FusedStream, Stream};

use super::{Count, Pace, Rule, Slice, yield_after, yield_every};

/// The slice of [`iter`]: within the range that `yield_after` recommends.
const DEFAULT_SLICE: Duration = Duration::from_micros(500);

/// Drives an iterator as a stream that yields after 500 µs, as [`yield_after`](crate::yield_after()) does.
///
/// [`Iter::yield_every`] and [`Iter::yield_after`] select another pace.
///
/// # Examples
///
/// ```
/// use futures::StreamExt as _;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let rows = vec![3, 1, 2];
/// let mut rows = shotclock::coop::iter(rows);
/// let mut sum = 0;
/// while let Some(row) = rows.next().await {
///     sum += row;
/// }
/// assert_eq!(sum, 6);
/// # }
/// ```
///
/// # Cancel safety
///
/// No item is lost, because the stream yields before it calls the iterator.
///
/// # Non-guarantees
///
/// The stream does not interrupt a call of `Iterator::next`. Run a blocking iterator on a [lane](crate::Lane).
pub fn iter<I: IntoIterator>(items: I) -> Iter<I::IntoIter> {
    Iter {
        items: Some(items.into_iter()),
        pace: yield_after(DEFAULT_SLICE),
        owes_tick: false,
    }
}

/// Drives an iterator as a stream that yields. [`iter`] makes it.
///
/// It drops the iterator at its end, and does not call it again. It is `Unpin`.
#[must_use = "streams do nothing unless they are polled"]
#[derive(Clone, Debug)]
pub struct Iter<I, R = Slice> {
    /// `None` after its end.
    items: Option<I>,
    pace: Pace<R>,
    owes_tick: bool,
}

impl<I, R> Iter<I, R> {
    /// Yields after every `n` items instead.
    ///
    /// # Panics
    ///
    /// If `n` is 0.
    #[track_caller]
    pub fn yield_every(self, n: u64) -> Iter<I, Count> {
        self.at(yield_every(n))
    }

    /// Yields after another slice.
    pub fn yield_after(self, slice: Duration) -> Iter<I, Slice> {
        self.at(yield_after(slice))
    }

    fn at<Q>(self, pace: Pace<Q>) -> Iter<I, Q> {
        Iter {
            items: self.items,
            pace,
            owes_tick: self.owes_tick,
        }
    }
}

// The iterator is never pinned.
impl<I, R> Unpin for Iter<I, R> {}

impl<I: Iterator, R: Rule> Stream for Iter<I, R> {
    type Item = I::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<I::Item>> {
        let this = &mut *self;
        if this.owes_tick {
            ready!(this.pace.poll_tick(cx));
            this.owes_tick = false;
        }
        let item = this.items.as_mut().and_then(Iterator::next);
        match item {
            Some(_) => this.owes_tick = true,
            None => this.items = None,
        }
        Poll::Ready(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.items {
            Some(items) => items.size_hint(),
            None => (0, Some(0)),
        }
    }
}

impl<I: Iterator, R: Rule> FusedStream for Iter<I, R> {
    fn is_terminated(&self) -> bool {
        self.items.is_none()
    }
}

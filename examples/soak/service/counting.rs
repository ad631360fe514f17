//! Polls are counted here without the watchdog: in a wrapper around the watched future, stream or body.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::Stream;
use hyper::body::{Body, Frame, SizeHint};
use shotclock::{Watch, WatchExt as _, Watched};

use crate::wire::Count;

/// The budget of every watch here.
pub(crate) const BUDGET: Duration = Duration::from_millis(10);

/// The polls of one watch.
#[derive(Debug, Default)]
pub(crate) struct PollCount {
    began: AtomicU64,
    ended: AtomicU64,
    long_drops: AtomicU64,
    /// Overlooks one in a thousand.
    blind: bool,
}

impl PollCount {
    /// Counts `poll`, however it ends.
    pub(crate) fn count<T>(&self, poll: impl FnOnce() -> T) -> T {
        self.began.fetch_add(1, SeqCst);
        let _ended = Ended(&self.ended);
        poll()
    }

    fn read(&self) -> Count {
        let seen = |polls: u64| polls - u64::from(self.blind) * polls / 1_000;
        // What ended is read first, so that no more have ended than began.
        let ended = seen(self.ended.load(SeqCst));
        Count {
            began: seen(self.began.load(SeqCst)),
            ended,
            long_drops: self.long_drops.load(SeqCst),
        }
    }
}

struct Ended<'t>(&'t AtomicU64);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// The tallies of all watches, by name: two watchdogs with one name have one tally, as they have one series.
#[derive(Debug)]
pub(crate) struct PollCounts {
    by_name: Mutex<BTreeMap<String, Arc<PollCount>>>,
    blind: bool,
}

impl PollCounts {
    /// With `blind`, they overlook one poll in a thousand.
    pub(crate) fn new(blind: bool) -> Self {
        let by_name = Mutex::default();
        Self { by_name, blind }
    }

    pub(crate) fn of(&self, name: &str) -> Arc<PollCount> {
        let mut tallies = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || PollCount {
            blind: self.blind,
            ..PollCount::default()
        };
        Arc::clone(
            tallies
                .entry(name.to_owned())
                .or_insert_with(|| new().into()),
        )
    }

    pub(crate) fn read(&self) -> Vec<(String, Count)> {
        let tallies = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |(name, tally): (&String, &Arc<PollCount>)| (name.clone(), tally.read());
        tallies.iter().map(read).collect()
    }
}

/// A watch, and the tally of its polls.
#[derive(Clone, Debug)]
pub(crate) struct Spot {
    pub(crate) watch: Watch,
    tally: Arc<PollCount>,
}

impl Spot {
    pub(crate) fn new(watch: Watch, tallies: &PollCounts) -> Self {
        let tally = tallies.of(watch.name());
        Self { watch, tally }
    }

    /// Watched, and counted.
    pub(crate) fn watch<T>(&self, inner: T) -> Counting<Watched<T>> {
        Counting::new(inner.watched(&self.watch), &self.tally)
    }
}

/// What is watched, counted from outside.
pub(crate) struct Counting<T> {
    /// `None` when it is dropped, which is timed.
    watched: Option<Pin<Box<T>>>,
    tally: Arc<PollCount>,
}

impl<T> Counting<T> {
    pub(crate) fn new(watched: T, tally: &Arc<PollCount>) -> Self {
        Self {
            watched: Some(Box::pin(watched)),
            tally: Arc::clone(tally),
        }
    }

    fn poll_by<P>(&mut self, poll: impl FnOnce(Pin<&mut T>) -> Poll<P>) -> Poll<P> {
        match &mut self.watched {
            Some(watched) => self.tally.count(|| poll(watched.as_mut())),
            None => Poll::Pending,
        }
    }
}

impl<T> Drop for Counting<T> {
    fn drop(&mut self) {
        let begun = Instant::now();
        drop(self.watched.take());
        // The watchdog's readings of the clock lie between these two.
        if begun.elapsed() > BUDGET {
            self.tally.long_drops.fetch_add(1, SeqCst);
        }
    }
}

impl<F: Future> Future for Counting<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.poll_by(|future| future.poll(cx))
    }
}

impl<S: Stream> Stream for Counting<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.poll_by(|stream| stream.poll_next(cx))
    }
}

impl<B: Body> Body for Counting<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.poll_by(|body| body.poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        let body = self.watched.as_ref();
        body.is_none_or(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let body = self.watched.as_ref();
        body.map(|body| body.size_hint()).unwrap_or_default()
    }
}

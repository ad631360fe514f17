//! Counts polls without the watchdog: by a wrapper around the watched future, stream or body.

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

/// The budget of every watch of the service.
pub(crate) const BUDGET: Duration = Duration::from_millis(10);

/// The polls of one watch.
#[derive(Debug, Default)]
pub(crate) struct PollCount {
    began: AtomicU64,
    ended: AtomicU64,
    long_drops: AtomicU64,
    /// Misses one poll in a thousand.
    blind: bool,
}

impl PollCount {
    /// Counts a poll, however it ends.
    pub(crate) fn count<T>(&self, poll: impl FnOnce() -> T) -> T {
        self.began.fetch_add(1, SeqCst);
        let _ended = Ended(&self.ended);
        poll()
    }

    fn read(&self) -> Count {
        let seen = |polls: u64| polls - u64::from(self.blind) * polls / 1_000;
        // Reads the ended polls first, so that they never exceed those that began.
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

/// The poll counts of all watches, by name. Watchdogs that use the same name share the counts, as they share the
/// series.
#[derive(Debug)]
pub(crate) struct PollCounts {
    by_name: Mutex<BTreeMap<String, Arc<PollCount>>>,
    blind: bool,
}

impl PollCounts {
    /// With `blind`, the counts miss one poll in a thousand.
    pub(crate) fn new(blind: bool) -> Self {
        let by_name = Mutex::default();
        Self { by_name, blind }
    }

    pub(crate) fn of(&self, name: &str) -> Arc<PollCount> {
        let mut poll_counts = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || PollCount {
            blind: self.blind,
            ..PollCount::default()
        };
        Arc::clone(
            poll_counts
                .entry(name.to_owned())
                .or_insert_with(|| new().into()),
        )
    }

    pub(crate) fn read(&self) -> Vec<(String, Count)> {
        let poll_counts = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let read =
            |(name, poll_count): (&String, &Arc<PollCount>)| (name.clone(), poll_count.read());
        poll_counts.iter().map(read).collect()
    }
}

/// A watch, and the counts of its polls.
#[derive(Clone, Debug)]
pub(crate) struct Spot {
    pub(crate) watch: Watch,
    poll_count: Arc<PollCount>,
}

impl Spot {
    pub(crate) fn new(watch: Watch, poll_counts: &PollCounts) -> Self {
        let poll_count = poll_counts.of(watch.name());
        Self { watch, poll_count }
    }

    /// Wraps a future so that it is watched and counted.
    pub(crate) fn watch<T>(&self, inner: T) -> Counting<Watched<T>> {
        Counting::new(inner.watched(&self.watch), &self.poll_count)
    }
}

/// A watched future, stream or body whose polls are counted from outside.
pub(crate) struct Counting<T> {
    /// `None` while its destructor runs, which is timed.
    watched: Option<Pin<Box<T>>>,
    poll_count: Arc<PollCount>,
}

impl<T> Counting<T> {
    pub(crate) fn new(watched: T, poll_count: &Arc<PollCount>) -> Self {
        Self {
            watched: Some(Box::pin(watched)),
            poll_count: Arc::clone(poll_count),
        }
    }

    fn poll_by<P>(&mut self, poll: impl FnOnce(Pin<&mut T>) -> Poll<P>) -> Poll<P> {
        match &mut self.watched {
            Some(watched) => self.poll_count.count(|| poll(watched.as_mut())),
            None => Poll::Pending,
        }
    }
}

impl<T> Drop for Counting<T> {
    fn drop(&mut self) {
        let begun = Instant::now();
        drop(self.watched.take());
        // The watchdog reads the clock between these two readings.
        if begun.elapsed() > BUDGET {
            self.poll_count.long_drops.fetch_add(1, SeqCst);
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

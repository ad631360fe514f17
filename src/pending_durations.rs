//! Floor 1: single durations on their way to a `metrics` histogram.
//!
//! A recorder is somebody else's code: it may block or panic, so it is never called on a runtime
//! worker. A duration is handed over here, and the metrics thread records it. The hand-over is
//! bounded and never waits; what finds it full is added to its series instead, so that the count
//! and the sum of the histogram stay exact and only the spread of that remainder is lost.

#![cfg_attr(
    not(feature = "metrics"),
    allow(dead_code, reason = "nobody takes the samples without the facade")
)]

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crossbeam_queue::ArrayQueue;

/// How many durations wait at most. One is 16 bytes.
const CAPACITY: usize = 4096;

/// One histogram of the facade: a name and one label.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) name: &'static str,
    pub(crate) label: (&'static str, Arc<str>),
    left_over: AtomicU64,
    left_over_nanos: AtomicU64,
}

/// A series that lives as long as its watch, or, of a lane, as long as the process: then nobody has to
/// count who holds it.
#[derive(Clone)]
pub(crate) enum SeriesRef {
    Shared(Arc<Series>),
    Static(&'static Series),
}

impl std::ops::Deref for SeriesRef {
    type Target = Series;

    fn deref(&self) -> &Series {
        match self {
            SeriesRef::Shared(series) => series,
            SeriesRef::Static(series) => series,
        }
    }
}

/// What did not fit into the hand-over.
#[derive(Debug, PartialEq)]
pub(crate) struct LeftOver {
    pub(crate) count: u64,
    pub(crate) nanos: u64,
}

impl Series {
    pub(crate) fn new(name: &'static str, key: &'static str, value: Arc<str>) -> Arc<Self> {
        Arc::new(Self::owned(name, key, value))
    }

    fn owned(name: &'static str, key: &'static str, value: Arc<str>) -> Self {
        Self {
            name,
            label: (key, value),
            left_over: AtomicU64::new(0),
            left_over_nanos: AtomicU64::new(0),
        }
    }

    /// One that lives as long as the process.
    pub(crate) fn forever(
        name: &'static str,
        key: &'static str,
        value: &Arc<str>,
    ) -> &'static Self {
        Box::leak(Box::new(Self::owned(name, key, Arc::clone(value))))
    }

    /// Another series of the same metric.
    pub(crate) fn empty(&self, value: &Arc<str>) -> Arc<Self> {
        Self::new(self.name, self.label.0, Arc::clone(value))
    }

    /// Takes what did not fit since the last call.
    ///
    /// Time may be one value ahead of the count (see [`leave`](Self::leave)), never behind; over all
    /// calls both are exact.
    pub(crate) fn take_left_over(&self) -> LeftOver {
        let count = self.left_over.swap(0, Acquire);
        let nanos = match count {
            0 => 0,
            _ => self.left_over_nanos.swap(0, Relaxed),
        };
        LeftOver { count, nanos }
    }

    /// Keeps what does not fit. The time first: who sees the count sees the time as well.
    pub(crate) fn leave(&self, left_over: LeftOver) {
        let LeftOver { count, nanos } = left_over;
        self.left_over_nanos.fetch_add(nanos, Relaxed);
        self.left_over.fetch_add(count, Release);
    }
}

impl LeftOver {
    /// Splits off `count` of it, with their part of the time.
    pub(crate) fn split_off(&mut self, count: u64) -> Self {
        let count = count.min(self.count);
        let nanos = match self.count {
            0 => 0,
            whole => (u128::from(self.nanos) * u128::from(count) / u128::from(whole)) as u64,
        };
        self.count -= count;
        self.nanos -= nanos;
        Self { count, nanos }
    }
}

/// Durations that go back to their series if this is dropped before they were released.
pub(crate) struct Held<'s> {
    series: &'s Series,
    durations: Option<LeftOver>,
}

impl<'s> Held<'s> {
    pub(crate) fn new(series: &'s Series, durations: LeftOver) -> Self {
        let durations = Some(durations);
        Self { series, durations }
    }

    pub(crate) fn release(mut self) -> LeftOver {
        let nothing = LeftOver { count: 0, nanos: 0 };
        self.durations.take().unwrap_or(nothing)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(durations) = self.durations.take() {
            self.series.leave(durations);
        }
    }
}

/// The hand-over.
pub(crate) struct Samples {
    waiting: ArrayQueue<(SeriesRef, u64)>,
}

impl Samples {
    pub(crate) fn new() -> Self {
        Self::with_capacity(CAPACITY)
    }

    fn with_capacity(capacity: usize) -> Self {
        Self {
            waiting: ArrayQueue::new(capacity),
        }
    }

    /// Hands one duration over; says whether it is time to come and take them, which is at half
    /// full and not again before it was emptied: with nobody to record for, it stays full.
    pub(crate) fn push(&self, series: SeriesRef, nanos: u64) -> bool {
        if let Err((series, nanos)) = self.waiting.push((series, nanos)) {
            series.leave(LeftOver { count: 1, nanos });
        }
        self.waiting.len() == self.waiting.capacity() / 2
    }

    pub(crate) fn pop(&self) -> Option<(SeriesRef, u64)> {
        self.waiting.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_kept_as_count_and_sum() {
        let samples = Samples::with_capacity(2);
        let series = Series::new("s", "watch", "a".into());
        let shared = || SeriesRef::Shared(Arc::clone(&series));
        assert!(samples.push(shared(), 1));
        for nanos in [2, 3, 4] {
            assert!(!samples.push(shared(), nanos));
        }
        assert_eq!(samples.pop().map(|(_, nanos)| nanos), Some(1));
        assert_eq!(samples.pop().map(|(_, nanos)| nanos), Some(2));
        assert!(samples.pop().is_none());
        assert_eq!(series.take_left_over(), LeftOver { count: 2, nanos: 7 });
        assert_eq!(series.take_left_over(), LeftOver { count: 0, nanos: 0 });
    }

    #[test]
    fn what_is_left_over_is_exact_whoever_comes_between() {
        let series = Series::new("s", "watch", "a".into());
        let mut sum = LeftOver { count: 0, nanos: 0 };
        let mut take = || {
            let LeftOver { count, nanos } = series.take_left_over();
            sum.count += count;
            sum.nanos += nanos;
        };
        std::thread::scope(|scope| {
            let leave = || (0..100_000).for_each(|_| series.leave(LeftOver { count: 1, nanos: 1 }));
            let threads = [scope.spawn(leave), scope.spawn(leave)];
            while threads.iter().any(|thread| !thread.is_finished()) {
                take();
            }
            take();
        });
        assert_eq!(
            sum,
            LeftOver {
                count: 200_000,
                nanos: 200_000
            }
        );
    }

    #[test]
    fn a_part_takes_its_part_of_the_time() {
        let mut rest = LeftOver {
            count: 10,
            nanos: 99,
        };
        assert_eq!(
            rest.split_off(3),
            LeftOver {
                count: 3,
                nanos: 29
            }
        );
        assert_eq!(
            rest.split_off(100),
            LeftOver {
                count: 7,
                nanos: 70
            }
        );
        assert_eq!(rest.split_off(1), LeftOver { count: 0, nanos: 0 });
    }
}

//! Floor 1: durations that wait until the metrics thread records them in a `metrics` histogram.
//!
//! A recorder may block or panic, so the crate does not call it on a runtime worker. The worker pushes a duration to a
//! bounded queue and does not wait. If the queue is full, the worker adds the duration to the overflow of its series. So
//! the count and the sum of the histogram stay exact, and only the spread of the overflow is lost.

#![cfg_attr(
    not(feature = "metrics"),
    allow(dead_code, reason = "no thread records durations without the facade")
)]

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crossbeam_queue::ArrayQueue;

/// The most durations in the queue. One takes 32 bytes with the queue's stamp, so the queue takes 128 KiB.
const CAPACITY: usize = 4096;

/// The histograms, by their names in Prometheus.
pub(crate) const SLOW_POLL_DURATION: &str = "shotclock_slow_poll_duration_seconds";
pub(crate) const RUNTIME_LAG: &str = "shotclock_runtime_lag_seconds";
pub(crate) const OFFLOAD_WAIT: &str = "shotclock_offload_wait_seconds";
pub(crate) const OFFLOAD_RUN: &str = "shotclock_offload_run_seconds";

/// One histogram of the facade: a name and one label.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) name: &'static str,
    pub(crate) label: (&'static str, Arc<str>),
    overflow_count: AtomicU64,
    overflow_nanos: AtomicU64,
}

/// A reference to a series. That of a watch has an owner count, and that of a lane or runtime lives as long as the process.
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

/// Durations that the queue had no room for, as a count and a sum.
#[derive(Debug, PartialEq)]
pub(crate) struct Overflow {
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
            overflow_count: AtomicU64::new(0),
            overflow_nanos: AtomicU64::new(0),
        }
    }

    /// Leaks a series, which lives as long as the process.
    pub(crate) fn forever(
        name: &'static str,
        key: &'static str,
        value: &Arc<str>,
    ) -> &'static Self {
        Box::leak(Box::new(Self::owned(name, key, Arc::clone(value))))
    }

    /// Returns a new series of the same metric.
    pub(crate) fn empty(&self, value: &Arc<str>) -> Arc<Self> {
        Self::new(self.name, self.label.0, Arc::clone(value))
    }

    /// Takes the overflow since the last call.
    ///
    /// The time may be one value ahead of the count, and never behind it (see [`add_overflow`](Self::add_overflow)). Over
    /// all calls both are exact.
    pub(crate) fn take_overflow(&self) -> Overflow {
        let count = self.overflow_count.swap(0, Acquire);
        let nanos = match count {
            0 => 0,
            _ => self.overflow_nanos.swap(0, Relaxed),
        };
        Overflow { count, nanos }
    }

    /// Adds to the overflow. The time first, so that a thread that sees the count sees the time too.
    pub(crate) fn add_overflow(&self, overflow: Overflow) {
        let Overflow { count, nanos } = overflow;
        self.overflow_nanos.fetch_add(nanos, Relaxed);
        self.overflow_count.fetch_add(count, Release);
    }
}

impl Overflow {
    /// Splits off up to `count` durations, with their part of the time.
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

/// Durations that a drop returns to the overflow of their series, unless [`take`](Self::take) took them.
pub(crate) struct PendingDurations<'s> {
    series: &'s Series,
    pending: Option<Overflow>,
}

impl<'s> PendingDurations<'s> {
    pub(crate) fn new(series: &'s Series, durations: Overflow) -> Self {
        let pending = Some(durations);
        Self { series, pending }
    }

    pub(crate) fn take(mut self) -> Overflow {
        let nothing = Overflow { count: 0, nanos: 0 };
        self.pending.take().unwrap_or(nothing)
    }
}

impl Drop for PendingDurations<'_> {
    fn drop(&mut self) {
        if let Some(pending) = self.pending.take() {
            self.series.add_overflow(pending);
        }
    }
}

/// The queue between the workers and the metrics thread.
pub(crate) struct DurationQueue {
    queue: ArrayQueue<(SeriesRef, u64)>,
}

impl DurationQueue {
    pub(crate) fn new() -> Self {
        Self::with_capacity(CAPACITY)
    }

    fn with_capacity(capacity: usize) -> Self {
        Self {
            queue: ArrayQueue::new(capacity),
        }
    }

    /// Pushes one duration, and returns whether this push filled the queue to half of its capacity.
    ///
    /// Without a recorder the queue stays full, and no further push returns true.
    pub(crate) fn push(&self, series: SeriesRef, nanos: u64) -> bool {
        if let Err((series, nanos)) = self.queue.push((series, nanos)) {
            series.add_overflow(Overflow { count: 1, nanos });
        }
        self.queue.len() == self.queue.capacity() / 2
    }

    pub(crate) fn pop(&self) -> Option<(SeriesRef, u64)> {
        self.queue.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn push_to_a_full_queue_adds_to_the_overflow() {
        let queue = DurationQueue::with_capacity(2);
        let series = Series::new("s", "watch", "a".into());
        let shared = || SeriesRef::Shared(Arc::clone(&series));
        assert!(queue.push(shared(), 1));
        for nanos in [2, 3, 4] {
            assert!(!queue.push(shared(), nanos));
        }
        assert_eq!(queue.pop().map(|(_, nanos)| nanos), Some(1));
        assert_eq!(queue.pop().map(|(_, nanos)| nanos), Some(2));
        assert!(queue.pop().is_none());
        assert_eq!(series.take_overflow(), Overflow { count: 2, nanos: 7 });
        assert_eq!(series.take_overflow(), Overflow { count: 0, nanos: 0 });
    }

    #[test]
    fn overflow_of_concurrent_threads_is_exact() {
        let series = Series::new("s", "watch", "a".into());
        let mut sum = Overflow { count: 0, nanos: 0 };
        let mut take = || {
            let Overflow { count, nanos } = series.take_overflow();
            sum.count += count;
            sum.nanos += nanos;
        };
        std::thread::scope(|scope| {
            let add =
                || (0..100_000).for_each(|_| series.add_overflow(Overflow { count: 1, nanos: 1 }));
            let threads = [scope.spawn(add), scope.spawn(add)];
            while threads.iter().any(|thread| !thread.is_finished()) {
                take();
            }
            take();
        });
        assert_eq!(
            sum,
            Overflow {
                count: 200_000,
                nanos: 200_000
            }
        );
    }

    #[test]
    fn split_off_takes_its_part_of_the_time() {
        let mut rest = Overflow {
            count: 10,
            nanos: 99,
        };
        assert_eq!(
            rest.split_off(3),
            Overflow {
                count: 3,
                nanos: 29
            }
        );
        assert_eq!(
            rest.split_off(100),
            Overflow {
                count: 7,
                nanos: 70
            }
        );
        assert_eq!(rest.split_off(1), Overflow { count: 0, nanos: 0 });
    }
}

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
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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

/// What did not fit into the hand-over.
#[derive(Debug, PartialEq)]
pub(crate) struct LeftOver {
    pub(crate) count: u64,
    pub(crate) nanos: u64,
}

impl Series {
    pub(crate) fn new(name: &'static str, key: &'static str, value: Arc<str>) -> Arc<Self> {
        Arc::new(Self {
            name,
            label: (key, value),
            left_over: AtomicU64::new(0),
            left_over_nanos: AtomicU64::new(0),
        })
    }

    /// Takes what did not fit since the last call.
    ///
    /// The two numbers may be an instant apart; what is missed by one call is in the next.
    pub(crate) fn take_left_over(&self) -> LeftOver {
        LeftOver {
            count: self.left_over.swap(0, Relaxed),
            nanos: self.left_over_nanos.swap(0, Relaxed),
        }
    }

    fn leave(&self, nanos: u64) {
        self.left_over.fetch_add(1, Relaxed);
        self.left_over_nanos.fetch_add(nanos, Relaxed);
    }
}

/// The hand-over.
pub(crate) struct Samples {
    waiting: ArrayQueue<(Arc<Series>, u64)>,
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
    pub(crate) fn push(&self, series: &Arc<Series>, nanos: u64) -> bool {
        if self.waiting.push((Arc::clone(series), nanos)).is_err() {
            series.leave(nanos);
        }
        self.waiting.len() == self.waiting.capacity() / 2
    }

    pub(crate) fn pop(&self) -> Option<(Arc<Series>, u64)> {
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
        assert!(samples.push(&series, 1));
        for nanos in [2, 3, 4] {
            assert!(!samples.push(&series, nanos));
        }
        assert_eq!(samples.pop().map(|(_, nanos)| nanos), Some(1));
        assert_eq!(samples.pop().map(|(_, nanos)| nanos), Some(2));
        assert!(samples.pop().is_none());
        assert_eq!(series.take_left_over(), LeftOver { count: 2, nanos: 7 });
        assert_eq!(series.take_left_over(), LeftOver { count: 0, nanos: 0 });
    }
}

//! Measures the lag of a runtime: the time from sending a probe to its poll.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::clock::Clock;

/// The value of [`Lag::sent`] while no probe waits for its poll.
const NO_PROBE: u64 = 0;

/// The lag of one runtime.
#[derive(Debug)]
pub(crate) struct Lag {
    /// When the probe that waits for its poll was sent, as a raw clock reading.
    sent: AtomicU64,
    latest_nanos: AtomicU64,
}

impl Lag {
    pub(super) fn new() -> Self {
        Self {
            sent: AtomicU64::new(NO_PROBE),
            latest_nanos: AtomicU64::new(0),
        }
    }

    /// Records that a probe is sent. Returns false while another one waits for its poll.
    pub(crate) fn try_begin_probe(&self, now: u64) -> bool {
        let sent = self
            .sent
            .compare_exchange(NO_PROBE, now.max(1), Relaxed, Relaxed);
        sent.is_ok()
    }

    /// Records the probe's poll. Returns the lag in nanoseconds.
    pub(crate) fn end_probe(&self, clock: &Clock) -> u64 {
        let lag = clock.nanos_between(self.sent.load(Relaxed), clock.raw());
        self.latest_nanos.store(lag, Relaxed);
        self.sent.store(NO_PROBE, Relaxed);
        lag
    }

    /// Returns the latest lag, or the age of the probe that waits, if that is longer.
    pub(crate) fn current(&self, clock: &Clock) -> Duration {
        let waiting = match self.sent.load(Relaxed) {
            NO_PROBE => 0,
            sent => clock.nanos_between(sent, clock.raw()),
        };
        Duration::from_nanos(waiting.max(self.latest_nanos.load(Relaxed)))
    }
}

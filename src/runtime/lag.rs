//! How late a runtime is for a task that was woken from outside.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::clock::Clock;

/// No probe is under way.
const NONE: u64 = 0;

/// See the module. Times are raw readings of a clock, or nanoseconds.
#[derive(Debug)]
pub(crate) struct Lag {
    /// When the probe was sent that has not been answered.
    sent: AtomicU64,
    latest: AtomicU64,
}

impl Lag {
    pub(super) fn new() -> Self {
        Self {
            sent: AtomicU64::new(NONE),
            latest: AtomicU64::new(0),
        }
    }

    /// Notes that a probe is sent. False while another one is under way.
    pub(crate) fn send(&self, now: u64) -> bool {
        let sent = self
            .sent
            .compare_exchange(NONE, now.max(1), Relaxed, Relaxed);
        sent.is_ok()
    }

    /// Notes that it was answered, and says how late that was.
    pub(crate) fn answer(&self, clock: &Clock) -> u64 {
        let lag = clock.nanos_between(self.sent.load(Relaxed), clock.raw());
        self.latest.store(lag, Relaxed);
        self.sent.store(NONE, Relaxed);
        lag
    }

    /// The latest that was measured, or how long there has been no answer, if that is longer.
    pub(crate) fn now(&self, clock: &Clock) -> Duration {
        let waiting = match self.sent.load(Relaxed) {
            NONE => 0,
            sent => clock.nanos_between(sent, clock.raw()),
        };
        Duration::from_nanos(waiting.max(self.latest.load(Relaxed)))
    }
}

//! One probe: a task that records on which thread and when it is polled.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::pending_durations::SeriesRef;
use crate::publish;
use crate::runtime::Guarded;
use crate::sync::IgnorePoison as _;
use crate::sys;

/// The time between two probes for the lag. A burst of lag of this length is seen, and ten tasks a second cost nothing.
pub(super) const LAG_PERIOD: Duration = Duration::from_millis(100);

/// The most values that one late probe records for probes that were not sent: a minute of them.
const MAX_MISSED: usize = 600;

/// The longest time that a probe blocks its worker. Four idle workers meet within 0.3 ms.
const MAX_MEETING_WAIT: Duration = Duration::from_millis(5);

/// A task that a guarded runtime polls once.
///
/// A runtime that shuts down drops the probe without a poll. The drop then ends the guard.
pub(super) struct Probe {
    guarded: Weak<Guarded>,
    rendezvous: Option<Arc<Rendezvous>>,
    was_polled: bool,
}

impl Probe {
    pub(super) fn for_lag(guarded: &Arc<Guarded>) -> Self {
        Self::new(guarded, None)
    }

    pub(super) fn for_discovery(guarded: &Arc<Guarded>, rendezvous: &Arc<Rendezvous>) -> Self {
        Self::new(guarded, Some(Arc::clone(rendezvous)))
    }

    fn new(guarded: &Arc<Guarded>, rendezvous: Option<Arc<Rendezvous>>) -> Self {
        Self {
            guarded: Arc::downgrade(guarded),
            rendezvous,
            was_polled: false,
        }
    }
}

impl Future for Probe {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        self.was_polled = true;
        // The child of a fork has neither the other workers nor the prober's thread.
        if sys::is_forked() {
            return Poll::Ready(());
        }
        if let Some(guarded) = self.guarded.upgrade() {
            if let Some(workers) = guarded.workers() {
                workers.bind_current_thread();
            }
            match &self.rendezvous {
                Some(rendezvous) => rendezvous.meet(),
                None => record_lag(&guarded),
            }
        }
        Poll::Ready(())
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if !self.was_polled
            && let Some(guarded) = self.guarded.upgrade()
        {
            guarded.end();
        }
    }
}

/// Records the lag of a probe and of the probes that were not sent while it waited.
///
/// Without those a lag of ten seconds would weigh no more than one of a microsecond, and the quantiles would leave out the
/// bad times.
fn record_lag(guarded: &Guarded) {
    let lag = guarded.lag.end_probe(guarded.clock());
    for lag in std::iter::once(lag).chain(missed(lag)) {
        publish::record_duration(SeriesRef::Static(guarded.counters.lag), lag);
    }
}

/// Returns the lags, in nanoseconds, of the probes that were not sent while one waited for `lag` nanoseconds.
fn missed(lag: u64) -> impl Iterator<Item = u64> {
    let period = LAG_PERIOD.as_nanos() as u64;
    let missed = (1..).map_while(move |number| lag.checked_sub(number * period));
    missed.take_while(|lag| *lag > 0).take(MAX_MISSED)
}

/// The place where the probes of a discovery wait for one another.
pub(super) struct Rendezvous {
    missing: Mutex<usize>,
    all_arrived: Condvar,
}

impl Rendezvous {
    pub(super) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self {
            missing: Mutex::new(count),
            all_arrived: Condvar::new(),
        })
    }

    fn meet(&self) {
        let mut missing = self.missing.lock().ignore_poison();
        *missing = missing.saturating_sub(1);
        if *missing == 0 {
            self.all_arrived.notify_all();
            return;
        }
        // A probe that arrives later finds the count at zero, or waits no longer than this one.
        let waited = self
            .all_arrived
            .wait_timeout_while(missing, MAX_MEETING_WAIT, |missing| *missing > 0);
        drop(waited);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_of_a_long_lag_is_one_lag_for_each_probe_not_sent() {
        let ms = 1_000_000;
        let missed = |lag| missed(lag).collect::<Vec<_>>();
        assert!(missed(0).is_empty() && missed(100 * ms).is_empty());
        assert_eq!(missed(350 * ms), [250 * ms, 150 * ms, 50 * ms]);
        assert_eq!(missed(u64::MAX).len(), MAX_MISSED);
    }

    #[test]
    fn meet_after_all_have_arrived_does_not_wait() {
        let rendezvous = Rendezvous::new(3);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| rendezvous.meet());
            }
        });
        // One probe more finds the count at zero.
        rendezvous.meet();
        assert_eq!(*rendezvous.missing.lock().unwrap(), 0);
    }
}

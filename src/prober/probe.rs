//! One probe: a task that says where it is polled, and when.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::pending_durations::SeriesRef;
use crate::publish;
use crate::runtime::Guarded;
use crate::sys;

/// How often a probe is sent that measures the lag.
pub(super) const PERIOD: Duration = Duration::from_millis(100);

/// So many probes are made up at most for those that could not be sent while one was under way.
const MADE_UP: usize = 600;

/// How long a worker waits at most for the others. All of four idle ones meet within 0.3 ms here.
const PATIENCE: Duration = Duration::from_millis(5);

/// A runtime that shuts down drops it without having polled it: then the guard is over.
pub(super) struct Probe {
    guarded: Weak<Guarded>,
    rendezvous: Option<Arc<Rendezvous>>,
    was_polled: bool,
}

impl Probe {
    pub(super) fn of_lag(guarded: &Arc<Guarded>) -> Self {
        Self::new(guarded, None)
    }

    pub(super) fn of_census(guarded: &Arc<Guarded>, rendezvous: &Arc<Rendezvous>) -> Self {
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
        // The child of a fork has neither the other workers nor who asks for the lag.
        if sys::is_forked() {
            return Poll::Ready(());
        }
        if let Some(guarded) = self.guarded.upgrade() {
            if let Some(workers) = guarded.workers() {
                workers.bind_current_thread();
            }
            match &self.rendezvous {
                Some(rendezvous) => rendezvous.meet(),
                None => record(&guarded),
            }
        }
        Poll::Ready(())
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if !self.was_polled {
            if let Some(guarded) = self.guarded.upgrade() {
                guarded.end();
            }
        }
    }
}

/// Records how late it was; and, if that was longer than the period, what the probes would have said
/// that would have been sent meanwhile. Else one of ten seconds would count for no more than one of a
/// microsecond, and the quantiles would be of the good times only.
fn record(guarded: &Guarded) {
    let lag = guarded.lag.end_probe(guarded.clock());
    for lag in std::iter::once(lag).chain(missed(lag)) {
        publish::sample(SeriesRef::Static(guarded.counters.lag), lag);
    }
}

/// How late the probes would have been that were not sent.
fn missed(lag: u64) -> impl Iterator<Item = u64> {
    let period = PERIOD.as_nanos() as u64;
    let missed = (1..).map_while(move |number| lag.checked_sub(number * period));
    missed.take_while(|lag| *lag > 0).take(MADE_UP)
}

/// Where the probes of a census wait for one another.
pub(super) struct Rendezvous {
    missing: Mutex<usize>,
    all_are_here: Condvar,
}

impl Rendezvous {
    pub(super) fn of(count: usize) -> Arc<Self> {
        Arc::new(Self {
            missing: Mutex::new(count),
            all_are_here: Condvar::new(),
        })
    }

    fn meet(&self) {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        *missing = missing.saturating_sub(1);
        if *missing == 0 {
            self.all_are_here.notify_all();
            return;
        }
        // Those that come later find it at zero or wait no longer than this one did.
        let waited = self
            .all_are_here
            .wait_timeout_while(missing, PATIENCE, |missing| *missing > 0);
        drop(waited);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_lag_counts_for_all_the_probes_that_it_kept_from_being_sent() {
        let ms = 1_000_000;
        let missed = |lag| missed(lag).collect::<Vec<_>>();
        assert!(missed(0).is_empty() && missed(100 * ms).is_empty());
        assert_eq!(missed(350 * ms), [250 * ms, 150 * ms, 50 * ms]);
        assert_eq!(missed(u64::MAX).len(), MADE_UP);
    }

    #[test]
    fn those_that_meet_do_not_wait_for_more() {
        let rendezvous = Rendezvous::of(3);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| rendezvous.meet());
            }
        });
        // One too many finds nobody missing.
        rendezvous.meet();
        assert_eq!(*rendezvous.missing.lock().unwrap(), 0);
    }
}

//! The reporter that each watchdog has: sums culprits, and keeps recent reports for the debug page.
//!
//! It has a queue and a thread of its own like any reporter, because it looks up the names of functions.

use std::sync::Arc;
use std::time::SystemTime;

use super::culprit_sample::CulpritSample;
use super::culprit_totals::CulpritTotals;
#[cfg(feature = "page")]
use super::recent::RecentReports;
use crate::report::{Culprits, Reporter, SlowPoll, StuckWorker};
use crate::sync::Lock;
#[cfg(feature = "page")]
use crate::sync::LockGuard;

/// The sums and recent reports of one watchdog.
#[derive(Default)]
pub(crate) struct History {
    totals: Lock<CulpritTotals>,
    #[cfg(feature = "page")]
    recent: Lock<RecentReports>,
}

/// The reporter that fills a history.
pub(crate) struct HistoryReporter(pub(crate) Arc<History>);

impl Reporter for HistoryReporter {
    fn on_slow_poll(&self, slow: &SlowPoll) {
        self.0.add(CulpritSample::of_poll(slow));
        #[cfg(feature = "page")]
        self.0.recent().add_poll(slow);
    }

    fn on_stuck_worker(&self, stuck: &StuckWorker) {
        self.0.add(CulpritSample::of_worker(stuck));
        #[cfg(feature = "page")]
        self.0.recent().add_worker(stuck);
    }
}

impl History {
    pub(crate) fn culprits(&self) -> Culprits {
        self.totals.lock().culprits()
    }

    #[cfg(feature = "page")]
    pub(crate) fn recent(&self) -> LockGuard<'_, RecentReports> {
        self.recent.lock()
    }

    fn add(&self, culprit: Option<CulpritSample<'_>>) {
        if let Some(culprit) = culprit {
            self.totals.lock().add(&culprit, SystemTime::now());
        }
    }
}

//! The reporter that every watchdog has: it adds up the culprits, and keeps the latest reports for the page.
//!
//! It has a queue and a thread of its own as any reporter does, because what functions are called is
//! looked up there.

use std::sync::Arc;
use std::time::SystemTime;

use super::culprit::Accusation;
use super::culprits::{CulpritBook, Culprits};
#[cfg(feature = "page")]
use super::latest::Latest;
use super::{Reporter, SlowPoll, StuckWorker};
use crate::sync::{Lock, LockGuard};

/// See the module.
#[derive(Default)]
pub(crate) struct Archive {
    book: Lock<CulpritBook>,
    #[cfg(feature = "page")]
    latest: Lock<Latest>,
}

/// The end of an archive that is told.
pub(crate) struct Archivist(pub(crate) Arc<Archive>);

impl Reporter for Archivist {
    fn on_slow_poll(&self, slow: &SlowPoll) {
        self.0.note(Accusation::of_poll(slow));
        #[cfg(feature = "page")]
        self.0.latest().keep_poll(slow);
    }

    fn on_stuck_worker(&self, stuck: &StuckWorker) {
        self.0.note(Accusation::of_worker(stuck));
        #[cfg(feature = "page")]
        self.0.latest().keep_worker(stuck);
    }
}

impl Archive {
    pub(crate) fn culprits(&self) -> Culprits {
        self.book().read()
    }

    /// The latest reports.
    #[cfg(feature = "page")]
    pub(crate) fn latest(&self) -> LockGuard<'_, Latest> {
        self.latest.lock()
    }

    fn note(&self, accusation: Option<Accusation<'_>>) {
        if let Some(accusation) = accusation {
            self.book().note(&accusation, SystemTime::now());
        }
    }

    fn book(&self) -> LockGuard<'_, CulpritBook> {
        self.book.lock()
    }
}

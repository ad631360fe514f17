//! Keeps recent reports for the debug page.

use std::collections::VecDeque;
use std::time::SystemTime;

use crate::report::{Phase, SlowPoll, StuckWorker};

/// Polls whose latest report the page lists. Bounds the memory.
const MAX_POLLS: usize = 256;

/// The recent reports of one watchdog.
#[derive(Default)]
pub(crate) struct RecentReports {
    polls: VecDeque<Recent>,
    /// The latest report of each worker that is stuck.
    workers: Vec<StuckWorker>,
}

/// The latest report of one poll.
#[derive(Clone)]
pub(crate) struct Recent {
    pub(crate) at: SystemTime,
    pub(crate) slow: SlowPoll,
}

impl RecentReports {
    /// Returns the latest report of each poll, the oldest first.
    pub(crate) fn polls(&self) -> Vec<Recent> {
        self.polls.iter().cloned().collect()
    }

    /// Returns the latest report of each worker that is stuck.
    pub(crate) fn stuck_workers(&self) -> Vec<StuckWorker> {
        self.workers.clone()
    }

    pub(super) fn add_poll(&mut self, slow: &SlowPoll) {
        // Replaces the earlier report of this poll.
        self.polls.retain(|known| known.slow.id != slow.id);
        if self.polls.len() >= MAX_POLLS {
            self.polls.pop_front();
        }
        self.polls.push_back(Recent {
            at: SystemTime::now(),
            slow: slow.without_context(),
        });
    }

    /// Keeps one report a worker, even if the report of its end was dropped.
    pub(super) fn add_worker(&mut self, stuck: &StuckWorker) {
        let key = |stuck: &StuckWorker| (stuck.runtime.clone(), stuck.worker);
        self.workers.retain(|known| key(known) != key(stuck));
        if stuck.phase == Phase::Running {
            self.workers.push(stuck.clone());
        }
    }
}

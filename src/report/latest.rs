//! The latest reports, for the page.

use std::collections::VecDeque;
use std::time::SystemTime;

use super::{Phase, SlowPoll, StuckWorker};

/// How many reports of polls are kept.
const MOST: usize = 256;

/// See the module.
#[derive(Default)]
pub(crate) struct Latest {
    polls: VecDeque<Recent>,
    /// One of each worker that is stuck.
    workers: Vec<StuckWorker>,
}

/// The latest report of one poll.
#[derive(Clone)]
pub(crate) struct Recent {
    pub(crate) at: SystemTime,
    pub(crate) slow: SlowPoll,
}

impl Latest {
    /// Of polls, one of each, the oldest first.
    pub(crate) fn polls(&self) -> Vec<Recent> {
        self.polls.iter().cloned().collect()
    }

    /// Of workers that are stuck, as they were reported last.
    pub(crate) fn stuck_workers(&self) -> Vec<StuckWorker> {
        self.workers.clone()
    }

    pub(super) fn keep_poll(&mut self, slow: &SlowPoll) {
        // What was told of it before is out of date.
        self.polls.retain(|known| known.slow.id != slow.id);
        if self.polls.len() >= MOST {
            self.polls.pop_front();
        }
        self.polls.push_back(Recent {
            at: SystemTime::now(),
            slow: slow.without_context(),
        });
    }

    /// At most as many as there are workers, even if the end of one was lost.
    pub(super) fn keep_worker(&mut self, stuck: &StuckWorker) {
        let place = |stuck: &StuckWorker| (stuck.runtime.clone(), stuck.worker);
        self.workers.retain(|known| place(known) != place(stuck));
        if stuck.phase == Phase::Running {
            self.workers.push(stuck.clone());
        }
    }
}

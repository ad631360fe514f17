//! Sends the watchdog's reports to the driver.

use shotclock::{Phase, Reporter, SlowPoll, StuckWorker};

use super::announcer::{Announcer, task_id, thread_id};
use crate::wire::{Id, News};

pub(crate) struct PassOn {
    pub(crate) announcer: Announcer,
    /// Sends each finished report twice.
    pub(crate) twice: bool,
}

impl Reporter for PassOn {
    fn on_slow_poll(&self, slow: &SlowPoll) {
        let news = News::Slow {
            report: slow.id,
            ended: slow.phase == Phase::Finished,
            watch: slow.watch.to_string(),
            task: task_id(slow.task),
            // Looks up the names of the stack's functions, as a reporter that logs them does.
            text: slow.to_string(),
        };
        if self.twice && slow.phase == Phase::Finished {
            self.announcer.tell(news.clone());
        }
        self.announcer.tell(news);
    }

    fn on_stuck_worker(&self, stuck: &StuckWorker) {
        let thread = stuck.thread.as_ref();
        // Reads the clock before the names are looked up, which takes a while.
        let at = self.announcer.now();
        self.announcer.tell(News::Stuck {
            report: stuck.id,
            ended: stuck.phase == Phase::Finished,
            thread: thread.map_or_else(Id::new, |thread| thread_id(thread.id)),
            at,
            millis: stuck.elapsed.as_millis() as u64,
            text: stuck.to_string(),
        });
    }
}

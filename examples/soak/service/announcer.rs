//! Sends announcements to the driver. A separate thread writes to the pipe, because a worker could block there.

use std::io::{self, Write as _};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use crate::wire::{Id, News, Stall};

#[derive(Clone, Debug)]
pub(crate) struct Announcer {
    news: Sender<News>,
    start: Instant,
}

impl Announcer {
    pub(crate) fn start() -> Self {
        let (news, told) = channel();
        thread::spawn(move || tell(&told));
        let start = Instant::now();
        Self { news, start }
    }

    pub(crate) fn tell(&self, news: News) {
        // If the thread cannot start, the driver gets no answer, and ends.
        let _ = self.news.send(news);
    }

    /// Holds this thread in a poll of `watch`, or outside of every watch.
    pub(crate) fn stall(&self, watch: Option<&str>, how: String, hold: impl FnOnce()) {
        let thread = thread_id(thread::current().id());
        self.tell(News::Stall(Stall {
            watch: watch.map(str::to_owned),
            task: task_id(tokio::task::try_id()),
            thread: thread.clone(),
            at: self.now(),
            how,
        }));
        hold();
        let at = self.now();
        self.tell(News::Over { thread, at });
    }

    /// Returns the milliseconds since the start of the service.
    pub(crate) fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }
}

fn tell(told: &Receiver<News>) {
    let mut out = io::stdout().lock();
    for news in told {
        let line = serde_json::to_string(&news).unwrap_or_default();
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

pub(crate) fn task_id(task: Option<tokio::task::Id>) -> Id {
    task.map_or_else(Id::new, |task| task.to_string())
}

pub(crate) fn thread_id(thread: thread::ThreadId) -> Id {
    format!("{thread:?}")
}

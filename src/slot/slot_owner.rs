//! The thread that owns a slot, and what the operating system accounts it for.

use std::fmt;
use std::sync::Arc;
use std::thread::ThreadId;

use crate::attribution::CpuSample;
use crate::clock::Clock;
use crate::procfs::{SchedCounts, Schedstat};
use crate::sys::Thread;

/// The thread that a poll held. `Display` prints its name if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThreadInfo {
    /// The name, as its builder gave it.
    pub name: Option<Arc<str>>,
    /// The identity of the thread within the process.
    pub id: ThreadId,
}

impl ThreadInfo {
    pub(crate) fn current() -> Self {
        let thread = std::thread::current();
        Self {
            name: thread.name().map(Arc::from),
            id: thread.id(),
        }
    }
}

impl fmt::Display for ThreadInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name),
            None => write!(f, "{:?}", self.id),
        }
    }
}

/// The thread that owns a slot at present, and what is kept open to look at it.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) info: ThreadInfo,
    /// `None` where the operating system does not tell.
    pub(crate) thread: Option<Thread>,
    /// PollStart when the thread is first looked at; where that fails, as when descriptors have run out, at
    /// a later look.
    schedstat: Option<Schedstat>,
    /// The latest account of it.
    pub(super) latest: CpuSample,
    /// For how many nanoseconds it has waited for a processor only because it was asked for its stack
    /// in its sleep. That wait is our doing, and in no account.
    pub(super) disturbed: u64,
}

impl Owner {
    pub(crate) fn current() -> Self {
        Self {
            info: ThreadInfo::current(),
            thread: Thread::current(),
            schedstat: None,
            latest: CpuSample::BIRTH,
            disturbed: 0,
        }
    }

    /// Asks what the thread has been accounted so far; `at` is the moment, or one before.
    pub(super) fn account(&mut self, at: u64, clock: &Clock) -> CpuSample {
        let wait = self.turns().map(|turns| turns.wait);
        let cpu = self.thread.as_ref().and_then(Thread::cpu_time);
        self.latest = CpuSample {
            at,
            by: clock.raw(),
            cpu,
            wait: wait.map(|wait| wait.saturating_sub(self.disturbed)),
        };
        self.latest
    }

    /// Takes what it has waited since a reading out of its accounts, if it had one turn since. Says
    /// whether it had.
    pub(super) fn excuse_disturbance(&mut self, since: SchedCounts) -> bool {
        let now = self.turns().filter(|now| now.count == since.count + 1);
        self.disturbed += now.map_or(0, |now| now.wait - since.wait);
        now.is_some()
    }

    /// What it had of the processors so far.
    pub(super) fn turns(&mut self) -> Option<SchedCounts> {
        if self.schedstat.is_none() {
            self.schedstat = self.thread.as_ref().and_then(Schedstat::open);
        }
        self.schedstat.as_ref().and_then(Schedstat::read)
    }
}

//! The thread that owns a slot, and its CPU samples.

use crate::attribution::CpuSample;
use crate::clock::Clock;
use crate::procfs::{SchedCounts, Schedstat};
use crate::report::ThreadInfo;
use crate::sys::Thread;

/// The thread that owns a slot now, and the files that are open to observe it.
#[derive(Debug)]
pub(crate) struct SlotOwner {
    pub(crate) info: ThreadInfo,
    /// `None` on platforms without support.
    pub(crate) thread: Option<Thread>,
    /// Opened at the first sample, or at a later one if that fails, for instance for want of file descriptors.
    schedstat: Option<Schedstat>,
    /// The latest sample.
    pub(super) latest: CpuSample,
    /// The time that the thread waited for a processor only because a signal for its stack woke it. The samples leave
    /// this time out.
    pub(super) disturbed_nanos: u64,
}

impl SlotOwner {
    pub(crate) fn current() -> Self {
        Self {
            info: ThreadInfo::current(),
            thread: Thread::current(),
            schedstat: None,
            latest: CpuSample::BIRTH,
            disturbed_nanos: 0,
        }
    }

    /// Takes a sample. `at` is a clock reading of now or a moment before.
    pub(super) fn sample(&mut self, at: u64, clock: &Clock) -> CpuSample {
        let wait = self.sched_counts().map(|counts| counts.wait);
        let cpu = self.thread.as_ref().and_then(Thread::cpu_time);
        self.latest = CpuSample {
            at,
            by: clock.raw(),
            cpu,
            wait: wait.map(|wait| wait.saturating_sub(self.disturbed_nanos)),
        };
        self.latest
    }

    /// Leaves out the wait since `since`, if the thread ran exactly once since then. Returns whether it did.
    pub(super) fn excuse_disturbance(&mut self, since: SchedCounts) -> bool {
        let now = self
            .sched_counts()
            .filter(|now| now.count == since.count + 1);
        self.disturbed_nanos += now.map_or(0, |now| now.wait - since.wait);
        now.is_some()
    }

    pub(super) fn sched_counts(&mut self) -> Option<SchedCounts> {
        if self.schedstat.is_none() {
            self.schedstat = self.thread.as_ref().and_then(Schedstat::open);
        }
        self.schedstat.as_ref().and_then(Schedstat::read)
    }
}

//! The state of a guarded runtime, in a report.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Describes a guarded runtime at the moment of a report.
///
/// Reports carry it if the runtime is guarded ([`Watchdog::guard`](crate::Watchdog::guard)). `Display` prints it
/// in a few words.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RuntimeSnapshot {
    /// The name under which the runtime is guarded.
    pub runtime: Arc<str>,
    /// The tasks in the queue that all workers share, without those in the queues of single workers.
    pub queued: usize,
    /// The workers of the runtime.
    pub workers: usize,
    /// The workers that were parked, and so free to run a task.
    pub parked: usize,
    /// The latest time from sending a probe to its poll, or the age of a probe that still waits, if that is longer.
    pub lag: Duration,
}

impl RuntimeSnapshot {
    /// Prints the state without the runtime's name, for a line that has the name already.
    pub(crate) fn without_name(&self) -> impl fmt::Display + '_ {
        WithoutName(self)
    }
}

struct WithoutName<'s>(&'s RuntimeSnapshot);

impl fmt::Display for WithoutName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RuntimeSnapshot {
            queued,
            workers,
            parked,
            lag,
            ..
        } = self.0;
        write!(
            f,
            "{parked} of {workers} workers parked, {queued} tasks queued, lag {lag:.1?}"
        )
    }
}

impl fmt::Display for RuntimeSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "runtime {:?}: {}", self.runtime, self.without_name())
    }
}

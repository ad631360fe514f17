//! The report of a worker of a guarded runtime.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::hint::{advice, with_cause};
use super::{
    Cause, Incident, Path, Phase, RuntimeSnapshot, SectionKind, ThreadInfo, TimeBreakdown,
};
use crate::stack::Stack;

/// Says what is proved of a worker that does not return to its driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StuckKind {
    /// The worker is inside one poll. Proof: its thread slept in one system call, a watched poll did not end, or a
    /// breakpoint behind tokio's call of the poll was not hit.
    OnePoll,
    /// The worker has not returned to its driver, and nothing proves that it is inside one poll. It is reported after
    /// ten budgets. In either case the worker polls no timers and no sockets.
    Busy,
}

impl fmt::Display for StuckKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StuckKind::OnePoll => "one poll",
            StuckKind::Busy => "busy",
        })
    }
}

/// Reports a worker of a guarded runtime that is stuck in one poll, or busy for very long
/// ([`kind`](Self::kind)).
///
/// The sentinel reports a worker that is proved to be in one poll for longer than the guard's budget
/// ([`WatchdogBuilder::guard_budget`](crate::WatchdogBuilder::guard_budget)), whatever that poll is. It reports the worker again each
/// time that this has lasted twice as long, and once when the worker has gone on. All these reports share one
/// [`id`](Self::id). [`stack`](Self::stack) shows the code.
///
/// If the sentinel reported a *watched* poll of the worker ([`SlowPoll`](crate::SlowPoll)), it only counts the worker.
///
/// `Display` prints one line, and the stack below it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StuckWorker {
    /// Identifies this time of being stuck among all reports of the process.
    pub id: u64,
    /// Whether the worker is still stuck.
    pub phase: Phase,
    /// Whether the worker is proved to be inside one poll.
    pub kind: StuckKind,
    /// The name under which the runtime is guarded.
    pub runtime: Arc<str>,
    /// The index of the worker in the runtime, as in `tokio::runtime::RuntimeMetrics`.
    pub worker: usize,
    /// The thread of the worker, if it is known.
    pub thread: Option<ThreadInfo>,
    /// The watches of the worker's polls in flight, outermost first. None of these polls was reported.
    pub path: Path,
    /// The least time for which the worker has been in the poll, or has not returned to its driver.
    pub elapsed: Duration,
    /// The guard's budget, or ten of them for [`StuckKind::Busy`].
    pub budget: Duration,
    /// Why the worker is stuck.
    pub cause: Cause,
    /// What a blocked worker waited on at the last scan: the path or socket behind a file descriptor, or the length
    /// of a sleep.
    pub waiting_on: Option<Arc<str>>,
    /// How the observed time divides.
    pub split: Option<TimeBreakdown>,
    /// The stack of the thread at the last scan.
    pub stack: Option<Stack>,
    /// Why there is no stack, or only its innermost functions.
    pub no_stack: Option<&'static str>,
    /// The state of the whole runtime. `None` if it has ended.
    pub runtime_snapshot: Option<RuntimeSnapshot>,
    /// The workers of this runtime that the rate limit suppressed since the last report.
    pub suppressed: u64,
}

impl StuckWorker {
    pub(crate) fn incident(&self) -> Incident<'_> {
        Incident {
            id: self.id,
            phase: self.phase,
            path: &self.path,
            thread: self.thread.as_ref(),
            elapsed: self.elapsed,
            budget: self.budget,
            cause: self.cause,
            waiting_on: self.waiting_on.as_deref(),
            split: self.split.as_ref(),
            stack: self.stack.as_ref(),
            no_stack: self.no_stack,
            runtime: self.runtime_snapshot.as_ref(),
            suppressed: self.suppressed,
        }
    }

    /// Returns a sentence with the cause and what to do about it.
    ///
    /// This may look up the names of functions, which takes long the first time.
    pub fn hint(&self) -> String {
        self.if_proved(with_cause(&self.cause, self.plain_advice()))
    }

    /// Returns what to do, for a log line that has the cause already.
    pub(crate) fn advice(&self) -> String {
        self.if_proved(self.plain_advice().into())
    }

    fn plain_advice(&self) -> &'static str {
        advice(&self.cause, SectionKind::Poll, self.stack.as_ref())
    }

    fn if_proved(&self, advice: String) -> String {
        match self.kind {
            StuckKind::OnePoll => advice,
            StuckKind::Busy => format!("if it is one poll: {advice}"),
        }
    }
}

impl fmt::Display for StuckWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            runtime,
            worker,
            elapsed,
            budget,
            ..
        } = self;
        let verb = match self.phase {
            Phase::Running => "is",
            Phase::Finished => "was",
        };
        write!(f, "worker {worker} of runtime {runtime:?} {verb} ")?;
        match self.kind {
            StuckKind::OnePoll => write!(f, "stuck in one poll for at least {elapsed:.1?}")?,
            StuckKind::Busy => write!(
                f,
                "busy without returning to the driver for {elapsed:.1?}, in one poll or in many"
            )?,
        }
        if let Some(thread) = &self.thread {
            write!(f, " on {thread}")?;
        }
        write!(f, ", budget {budget:?}")?;
        if !self.path.is_empty() {
            write!(f, ", inside {}", self.path)?;
        }
        let incident = self.incident();
        incident.write_causes(f)?;
        let runtime = self
            .runtime_snapshot
            .as_ref()
            .map(RuntimeSnapshot::without_name);
        let runtime = runtime.as_ref().map(|runtime| runtime as _);
        incident.write_end(f, runtime, &self.hint())
    }
}

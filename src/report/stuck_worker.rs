//! The report of a worker of a guarded runtime.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::hint::hint;
use super::{Path, Phase};
use crate::cause::{Cause, Split};
use crate::runtime::{Impact, StuckKind};
use crate::slot::{Kind, ThreadInfo};
use crate::stack::Stack;

/// A worker of a guarded runtime that is stuck in one poll, or busy for very long ([`kind`](Self::kind)).
///
/// The sentinel reports a worker that is proved to be in one poll for longer than the budget of the guard
/// ([`Builder::guard_budget`](crate::Builder::guard_budget)), whatever that poll is. It reports it again each
/// time that this has lasted twice as long, and once more when the worker went on, under one
/// [`id`](Self::id). [`stack`](Self::stack) shows the code.
///
/// If a *watched* poll on the worker was reported ([`SlowPoll`](crate::SlowPoll)), the worker is only
/// counted.
///
/// `Display` prints it in one line, and below it the stack, if there is one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StuckWorker {
    /// Tells this stretch from every other one, and from every slow poll, of the process.
    pub id: u64,
    /// Whether it is still stuck, or went on.
    pub phase: Phase,
    /// Whether it is proved to be in one poll.
    pub kind: StuckKind,
    /// The name under which its runtime is guarded.
    pub runtime: Arc<str>,
    /// Its number in the runtime, as in `tokio::runtime::RuntimeMetrics`.
    pub worker: usize,
    /// Its thread, if that is known.
    pub thread: Option<ThreadInfo>,
    /// The watches of its polls in flight, outermost first. None of those polls was reported.
    pub path: Path,
    /// For how long it has been in the poll, or has not returned to its driver; at least.
    pub elapsed: Duration,
    /// For how long it was allowed to: the budget of the guard, or ten of them for
    /// [`StuckKind::Busy`].
    pub budget: Duration,
    /// Why.
    pub cause: Cause,
    /// What it waited for when it was looked at last, if it was blocked: the path or socket behind a
    /// file descriptor, or a duration.
    pub waits_for: Option<Arc<str>>,
    /// How its time divides, as far as it was observed.
    pub split: Option<Split>,
    /// What the thread was doing when it was looked at last.
    pub stack: Option<Stack>,
    /// Why there is no stack, or only the innermost functions of it, if that is known.
    pub no_stack: Option<&'static str>,
    /// How the rest of the runtime stood. `None` if it has ended.
    pub impact: Option<Impact>,
    /// How many workers of the same runtime were not reported since the last one that was, because
    /// there were too many in that second.
    pub suppressed: u64,
}

impl StuckWorker {
    /// A sentence that says what to do, for this cause in this ecosystem.
    ///
    /// It may look up what the frames of the stack are called, which takes long the first time.
    pub fn hint(&self) -> String {
        let hint = hint(&self.cause, Kind::Poll, self.stack.as_ref());
        match self.kind {
            StuckKind::OnePoll => hint,
            StuckKind::Busy => format!("if it is one poll: {hint}"),
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
        if let Some(split) = &self.split {
            write!(f, ", {split}")?;
        }
        if let Some(waits_for) = &self.waits_for {
            write!(f, ", waits for {}", waits_for.escape_debug())?;
        }
        if let Some(why) = self.no_stack {
            write!(f, ", no whole stack: {why}")?;
        }
        if self.suppressed > 0 {
            write!(f, ", {} more not reported", self.suppressed)?;
        }
        if let Some(impact) = &self.impact {
            write!(f, "; {impact}")?;
        }
        write!(f, "; {}", self.hint())?;
        match &self.stack {
            Some(stack) => write!(f, "\n{stack}"),
            None => Ok(()),
        }
    }
}

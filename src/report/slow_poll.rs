//! The report of a poll over its budget.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tracing::{Dispatch, Span, dispatcher};

use super::hint::{advice, with_cause};
use super::{
    Allowance, Cause, Incident, OtherThread, Path, Phase, RuntimeSnapshot, SectionKind, ThreadInfo,
    TimeBreakdown,
};
use crate::catch_panic::catch_panic;
use crate::stack::Stack;

/// Reports a poll that exceeded its budget, or still runs over it.
///
/// The watchdog reports a stalled poll when it exceeds its budget, each time that its age has doubled, and once at its end. All these reports share one [`id`](Self::id).
///
/// Where watched futures are nested, the innermost culprit is reported, once. An outer poll is slow only if its
/// [`charged`](Self::charged) time exceeds its own budget.
///
/// `Display` prints one line, and the stack below it.
#[derive(Clone)]
#[non_exhaustive]
pub struct SlowPoll {
    /// Identifies the poll in the process. All reports of one poll have the same id.
    pub id: u64,
    /// Whether the poll still runs.
    pub phase: Phase,
    /// The kind of code that the watch timed.
    pub kind: SectionKind,
    /// The name of the watch.
    pub watch: Arc<str>,
    /// The watches around the poll, outermost first.
    pub path: Path,
    /// The wall time from the begin of the poll to its end, or to now.
    pub elapsed: Duration,
    /// The part of `elapsed` that is held against the budget: without slow polls inside that were reported already.
    pub charged: Duration,
    /// The longest time that the poll may take.
    pub budget: Duration,
    /// Why the poll was slow.
    pub cause: Cause,
    /// What a blocked poll waited on at the last scan: the path or socket behind a file descriptor, or the length of
    /// a sleep.
    pub waiting_on: Option<Arc<str>>,
    /// How the observed time divides.
    pub split: Option<TimeBreakdown>,
    /// The stack of the thread at the last scan.
    pub stack: Option<Stack>,
    /// Why there is no stack, or only its innermost functions.
    pub no_stack: Option<&'static str>,
    /// The stacks of the other threads with polls in flight, if an escalation step took them
    /// ([`WatchdogBuilder::escalate`](crate::WatchdogBuilder::escalate)).
    pub other_threads: Arc<[OtherThread]>,
    /// The declaration that the poll exceeded, if [`allow_blocking`](crate::allow_blocking) had allowed it to block.
    pub allowance: Option<Allowance>,
    /// Whether the thread had handed its worker to another one, in a contained poll or by
    /// `tokio::task::block_in_place`. Then only its own task waits. Known if a scan saw the poll.
    pub handed_over: bool,
    /// The source location of the call of `.watched()` or `.enter()`.
    pub location: &'static Location<'static>,
    /// The thread of the poll.
    pub thread: ThreadInfo,
    /// The tokio task of the poll, known once the poll has ended.
    pub task: Option<tokio::task::Id>,
    /// The state of the runtime, if it is guarded ([`Watchdog::guard`](crate::Watchdog::guard)).
    pub runtime_snapshot: Option<RuntimeSnapshot>,
    /// The slow polls of this watch that the rate limit suppressed since the last report.
    pub suppressed: u64,
    /// The slot of the poll, and its sequence number there.
    #[cfg_attr(not(feature = "page"), expect(dead_code, reason = "the page reads it"))]
    pub(crate) slot: Option<usize>,
    #[cfg_attr(not(feature = "page"), expect(dead_code, reason = "the page reads it"))]
    pub(crate) seq: Option<u64>,
    pub(crate) context: PollContext,
}

/// The facts that only the poll's own thread knows: the task, the span around the poll, and the span's subscriber.
#[derive(Clone)]
pub(crate) struct PollContext {
    pub(crate) task: Option<tokio::task::Id>,
    pub(crate) span: Span,
    pub(crate) dispatch: Dispatch,
}

impl PollContext {
    pub(crate) fn none() -> Self {
        Self {
            task: None,
            span: Span::none(),
            dispatch: Dispatch::none(),
        }
    }

    /// Reads the context of the calling thread.
    ///
    /// This runs code of the subscriber. If that panics, the report has no span.
    pub(crate) fn current() -> Self {
        let current = || {
            let span = Span::current();
            let of_span = span.with_subscriber(|(_, dispatch)| dispatch.clone());
            let dispatch = of_span.unwrap_or_else(|| dispatcher::get_default(Dispatch::clone));
            (span, dispatch)
        };
        let (span, dispatch) = catch_panic(current).unwrap_or((Span::none(), Dispatch::none()));
        Self {
            task: tokio::task::try_id(),
            span,
            dispatch,
        }
    }
}

impl SlowPoll {
    pub(crate) fn incident(&self) -> Incident<'_> {
        Incident {
            id: self.id,
            phase: self.phase,
            path: &self.path,
            thread: Some(&self.thread),
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

    /// Returns a copy without the span: a span that is kept does not close.
    #[cfg(feature = "page")]
    pub(crate) fn without_context(&self) -> Self {
        Self {
            context: PollContext::none(),
            ..self.clone()
        }
    }

    /// Returns the `tracing` span that was current around the poll.
    ///
    /// Enter it to log with the same fields. Only the poll's own thread knows the span, so a report of a running poll
    /// has none.
    ///
    /// # Examples
    ///
    /// ```
    /// # use shotclock::Watchdog;
    /// let watchdog = Watchdog::builder()
    ///     .on_slow_poll(|slow: &shotclock::SlowPoll| {
    ///         slow.span().in_scope(|| tracing::error!(%slow));
    ///     })
    ///     .build()?;
    /// # drop(watchdog);
    /// # Ok::<(), shotclock::Error>(())
    /// ```
    pub fn span(&self) -> &Span {
        &self.context.span
    }

    /// Returns a sentence with the cause and what to do about it.
    ///
    /// This may look up the names of functions, which takes long the first time.
    pub fn hint(&self) -> String {
        with_cause(&self.cause, &self.advice())
    }

    /// Returns what to do, for a log line that has the cause already.
    pub(crate) fn advice(&self) -> String {
        let advice = advice(&self.cause, self.kind, self.stack.as_ref());
        match self.handed_over {
            false => advice.into(),
            true => format!("{advice}; only this task waits: its worker runs on another thread"),
        }
    }
}

impl fmt::Display for SlowPoll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            watch,
            path,
            elapsed,
            budget,
            location,
            thread,
            ..
        } = self;
        let (state, so_far) = match self.phase {
            Phase::Running => ("stalled", " so far"),
            Phase::Finished => ("slow", ""),
        };
        write!(f, "{state} {kind} of {watch:?}")?;
        if !path.is_empty() {
            write!(f, " (inside {path})")?;
        }
        write!(f, ": {elapsed:.1?}{so_far} on {thread}, budget {budget:?}")?;
        write!(f, ", watched at {location}")?;
        let incident = self.incident();
        incident.write_causes(f)?;
        if self.charged != self.elapsed {
            write!(f, ", {:.1?} charged", self.charged)?;
        }
        if let Some(Allowance { reason, max, .. }) = &self.allowance {
            write!(f, ", past the {max:?} allowed for {reason:?}")?;
        }
        if let Some(task) = self.task {
            write!(f, ", task {task}")?;
        }
        let runtime = self.runtime_snapshot.as_ref().map(|runtime| runtime as _);
        incident.write_end(f, runtime, &self.hint())?;
        for other in &*self.other_threads {
            write!(f, "\n{other}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for SlowPoll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlowPoll")
            .field("id", &self.id)
            .field("phase", &self.phase)
            .field("kind", &self.kind)
            .field("watch", &self.watch)
            .field("path", &self.path)
            .field("elapsed", &self.elapsed)
            .field("charged", &self.charged)
            .field("budget", &self.budget)
            .field("cause", &self.cause)
            .field("waiting_on", &self.waiting_on)
            .field("split", &self.split)
            .field("stack", &self.stack)
            .field("no_stack", &self.no_stack)
            .field("other_threads", &self.other_threads)
            .field("allowance", &self.allowance)
            .field("handed_over", &self.handed_over)
            .field("location", &self.location)
            .field("thread", &self.thread)
            .field("task", &self.task)
            .field("runtime_snapshot", &self.runtime_snapshot)
            .field("suppressed", &self.suppressed)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "serde"))]
mod tests {
    use super::*;
    use crate::WatchExt as _;
    use crate::serialize::assert_json_has_public_fields;
    use crate::tests::{MS, Scene, run};

    #[test]
    fn slow_poll_json_has_every_public_field() {
        let scene = Scene::new();
        run(scene.takes(20 * MS).watched(&scene.watch("w")));
        let mut slow = scene.reports().remove(0);
        slow.allowance = Some(Allowance::new("legacy".into(), MS));
        slow.other_threads = Arc::new([OtherThread {
            thread: ThreadInfo::current(),
            watches: vec!["other".into()],
            stack: None,
            no_stack: None,
        }]);
        let json = assert_json_has_public_fields!(slow, SlowPoll {
            id, phase, kind, watch, path, elapsed, charged, budget, cause, waiting_on, split, stack, no_stack,
            other_threads, allowance, handed_over, location, thread, task, runtime_snapshot, suppressed,
        } private { slot, seq, context });
        assert_eq!(json["allowance"]["reason"], "legacy");
        assert_eq!(json["other_threads"][0]["watches"][0], "other");
    }
}

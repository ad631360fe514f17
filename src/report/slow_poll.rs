//! The report itself.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tracing::{Dispatch, Span, dispatcher};

use super::hint::hint;
use crate::catch_panic::catch_panic;
use crate::cause::{Cause, Split};
use crate::runtime::Impact;
use crate::slot::{Allowance, Kind, OtherThread, ThreadInfo};
use crate::stack::Stack;

/// A poll that ran past its budget, or still does.
///
/// A poll that is stuck is told while it runs, when it passes its budget and then each time that it
/// has run for twice as long; and once more when it has ended, under the same [`id`](Self::id).
///
/// Where watched futures are nested, the innermost culprit is reported, once: an outer poll is slow
/// only if what is left of it, less the slow polls inside that were reported already, is over its
/// own budget.
///
/// `Display` prints it in one line, and below it the stack, if there is one.
#[derive(Clone)]
#[non_exhaustive]
pub struct SlowPoll {
    /// Tells this poll from every other one of the process. All reports of one poll have it.
    pub id: u64,
    /// Whether the poll still runs.
    pub phase: Phase,
    /// What was timed: a poll, a destructor, or the life of a guard.
    pub kind: Kind,
    /// The name of its watch.
    pub watch: Arc<str>,
    /// The watches around it, outermost first.
    pub path: Path,
    /// How long it has been running, or ran.
    pub elapsed: Duration,
    /// How long it ran less the slow polls inside that were reported already: what was held against
    /// the budget.
    pub charged: Duration,
    /// How long it was allowed to run.
    pub budget: Duration,
    /// Why it was slow.
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
    /// The stacks of the other threads that had polls in flight, if that was asked for
    /// ([`Builder::escalate`](crate::Builder::escalate)) and the poll has run for so long.
    pub others: Arc<[OtherThread]>,
    /// What [`allow_blocking`](crate::allow_blocking) had allowed it, if it went past that.
    pub allowance: Option<Allowance>,
    /// Whether the thread had handed its worker to another one, in a contained poll or by
    /// `tokio::task::block_in_place`: then only its own task waits. Known if the poll was looked at.
    pub handed_over: bool,
    /// Where `.watched()` or `.enter()` was called.
    pub location: &'static Location<'static>,
    /// The thread that it held.
    pub thread: ThreadInfo,
    /// The tokio task that it belongs to, if any. It is known when the poll has ended.
    pub task: Option<tokio::task::Id>,
    /// How the runtime stood in which it was slow, if that is guarded
    /// ([`Watchdog::guard`](crate::Watchdog::guard)).
    pub impact: Option<Impact>,
    /// How many slow polls of the same watch were not reported since the last one that was, because
    /// there were too many in that second.
    pub suppressed: u64,
    /// On which slot it ran, and under which number there.
    #[cfg_attr(not(feature = "page"), expect(dead_code, reason = "the page asks"))]
    pub(crate) slot: Option<usize>,
    #[cfg_attr(not(feature = "page"), expect(dead_code, reason = "the page asks"))]
    pub(crate) seq: Option<u64>,
    pub(super) context: Context,
}

/// Where a poll stands at the moment of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// It still runs.
    Running,
    /// It has ended; `elapsed` is final.
    Finished,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Running => "running",
            Phase::Finished => "finished",
        })
    }
}

/// The names of the watches around a poll, outermost first. `Display` joins them with ` > `.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path {
    names: Vec<Arc<str>>,
}

impl Path {
    pub(super) fn new(names: Vec<Arc<str>>) -> Self {
        Self { names }
    }

    /// The names, outermost first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &str> + ExactSizeIterator {
        self.names.iter().map(|name| &**name)
    }

    /// Whether nothing watched was around.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, name) in self.iter().enumerate() {
            if number > 0 {
                f.write_str(" > ")?;
            }
            // A name may hold a line break; a line of a log may not.
            write!(f, "{}", name.escape_debug())?;
        }
        Ok(())
    }
}

/// What only the thread of a poll knows: the task, the span around the poll, and the subscriber that
/// it belongs to.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) task: Option<tokio::task::Id>,
    pub(super) span: Span,
    pub(super) dispatch: Dispatch,
}

impl Context {
    pub(super) fn none() -> Self {
        Self {
            task: None,
            span: Span::none(),
            dispatch: Dispatch::none(),
        }
    }

    /// That of the calling thread. It runs code of the subscriber's, which may panic; the report is
    /// made all the same.
    pub(super) fn here() -> Self {
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
    /// The same, without what belongs to the subscriber: a span that is kept does not end.
    #[cfg(feature = "page")]
    pub(super) fn without_context(&self) -> Self {
        Self {
            context: Context::none(),
            ..self.clone()
        }
    }

    /// The `tracing` span that was current around the poll: enter it to log with the same fields.
    ///
    /// Only the thread of the poll knows it, so there is none before the poll has ended.
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

    /// A sentence that says what to do, for this cause in this ecosystem.
    ///
    /// It may look up what the frames of the stack are called, which takes long the first time.
    pub fn hint(&self) -> String {
        let hint = hint(&self.cause, self.kind, self.stack.as_ref());
        match self.handed_over {
            false => hint,
            true => format!("{hint}; only this task waits: the worker went on, on another thread"),
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
        match self.phase {
            Phase::Running => write!(f, "{kind} of {watch:?} is stuck")?,
            Phase::Finished => write!(f, "slow {kind} of {watch:?}")?,
        }
        if !path.is_empty() {
            write!(f, " (inside {path})")?;
        }
        let so_far = match self.phase {
            Phase::Running => " so far",
            Phase::Finished => "",
        };
        write!(f, ": {elapsed:.1?}{so_far} on {thread}, budget {budget:?}")?;
        write!(f, ", watched at {location}")?;
        if let Some(split) = &self.split {
            write!(f, ", {split}")?;
        }
        if let Some(waits_for) = &self.waits_for {
            write!(f, ", waits for {}", waits_for.escape_debug())?;
        }
        if self.charged != self.elapsed {
            write!(f, ", {:.1?} of it by itself", self.charged)?;
        }
        if let Some(Allowance { reason, max, .. }) = &self.allowance {
            write!(f, ", past the {max:?} allowed for {reason:?}")?;
        }
        if let Some(why) = self.no_stack {
            write!(f, ", no whole stack: {why}")?;
        }
        if let Some(task) = self.task {
            write!(f, ", task {task}")?;
        }
        if self.suppressed > 0 {
            write!(f, ", {} more not reported", self.suppressed)?;
        }
        if let Some(impact) = &self.impact {
            write!(f, "; {impact}")?;
        }
        write!(f, "; {}", self.hint())?;
        if let Some(stack) = &self.stack {
            write!(f, "\n{stack}")?;
        }
        for other in &*self.others {
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
            .field("waits_for", &self.waits_for)
            .field("split", &self.split)
            .field("stack", &self.stack)
            .field("others", &self.others)
            .field("allowance", &self.allowance)
            .field("no_stack", &self.no_stack)
            .field("location", &self.location)
            .field("thread", &self.thread)
            .field("task", &self.task)
            .field("handed_over", &self.handed_over)
            .field("impact", &self.impact)
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
        slow.others = Arc::new([OtherThread {
            thread: ThreadInfo::current(),
            watches: vec!["other".into()],
            stack: None,
            no_stack: None,
        }]);
        let json = assert_json_has_public_fields!(slow, SlowPoll {
            id, phase, kind, watch, path, elapsed, charged, budget, cause, waits_for, split, stack, no_stack, others, allowance, handed_over,
            location, thread, task, impact, suppressed,
        } private { slot, seq, context });
        assert_eq!(json["allowance"]["reason"], "legacy");
        assert_eq!(json["others"][0]["watches"][0], "other");
    }
}

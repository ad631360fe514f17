//! The report itself.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tracing::{Dispatch, Span};

use crate::slot::{Kind, ThreadInfo};

/// A poll that ran past its budget, or still does.
///
/// A poll that is stuck is told while it runs, when it passes its budget and then each time that it
/// has run for twice as long; and once more when it has ended, under the same [`id`](Self::id).
///
/// Where watched futures are nested, the innermost culprit is reported, once: an outer poll is slow
/// only if what is left of it, less the slow polls inside that were reported already, is over its
/// own budget.
///
/// `Display` prints it in one line.
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
    pub own: Duration,
    /// How long it was allowed to run.
    pub budget: Duration,
    /// Why it was slow.
    pub cause: Cause,
    /// Where `.watched()` or `.enter()` was called.
    pub location: &'static Location<'static>,
    /// The thread that it held.
    pub thread: ThreadInfo,
    /// The tokio task that it belongs to, if any. It is known when the poll has ended.
    pub task: Option<tokio::task::Id>,
    /// How many slow polls of the same watch were not reported since the last one that was, because
    /// there were too many in that second.
    pub suppressed: u64,
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

/// Why a poll was slow, as far as it is known.
///
/// Nothing looks at a poll while it runs yet, so what is said here is what is known: nothing.
/// Causes will be added; match with a wildcard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// It is not known.
    Unknown,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Unknown => "unknown",
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

/// The span around the poll, and the subscriber in force there.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) span: Span,
    pub(super) dispatch: Dispatch,
}

impl Context {
    pub(super) fn none() -> Self {
        Self {
            span: Span::none(),
            dispatch: Dispatch::none(),
        }
    }
}

impl SlowPoll {
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

    /// A sentence that says what to do.
    pub fn hint(&self) -> &'static str {
        match self.kind {
            Kind::Poll => {
                "await instead of blocking (tokio::time, tokio::net, tokio::sync, tokio::fs), \
                 yield in long loops (shotclock::yield_every), \
                 or move the work to other threads (shotclock::offload)"
            }
            Kind::Drop => {
                "the time went into the destructor of the future: \
                 drop what is large, or what blocks when dropped, on other threads (shotclock::offload)"
            }
            Kind::Entered => "split the stretch, or move it to other threads (shotclock::offload)",
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
        if self.own != self.elapsed {
            write!(f, ", {:.1?} of it by itself", self.own)?;
        }
        if let Some(task) = self.task {
            write!(f, ", task {task}")?;
        }
        if self.suppressed > 0 {
            write!(f, ", {} more not reported", self.suppressed)?;
        }
        write!(f, "; {}", self.hint())
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
            .field("own", &self.own)
            .field("budget", &self.budget)
            .field("cause", &self.cause)
            .field("location", &self.location)
            .field("thread", &self.thread)
            .field("task", &self.task)
            .field("suppressed", &self.suppressed)
            .finish_non_exhaustive()
    }
}

//! The common part of the reports of a slow poll and of a stuck worker.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::cause::{Cause, Resource, TimeBreakdown};
use super::{RuntimeSnapshot, ThreadInfo};
use crate::stack::Stack;

/// Tells the report of a running poll or worker from the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// The poll still runs, or the worker is still stuck.
    Running,
    /// The poll has ended, or the worker has gone on; `elapsed` is final.
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

/// Lists the names of the watches around a poll, outermost first. `Display` joins them with ` > `.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path {
    names: Vec<Arc<str>>,
}

impl Path {
    pub(crate) fn new(names: Vec<Arc<str>>) -> Self {
        Self { names }
    }

    /// Iterates over the names, outermost first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &str> + ExactSizeIterator {
        self.names.iter().map(|name| &**name)
    }

    /// Returns whether no watched poll was around.
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
            // A name may hold a line break, and a log line must not.
            write!(f, "{}", name.escape_debug())?;
        }
        Ok(())
    }
}

/// Borrows the fields that both kinds of report have, so that one piece of code prints, logs and sums them.
pub(crate) struct Incident<'r> {
    pub(crate) id: u64,
    pub(crate) phase: Phase,
    pub(crate) path: &'r Path,
    pub(crate) thread: Option<&'r ThreadInfo>,
    pub(crate) elapsed: Duration,
    pub(crate) budget: Duration,
    pub(crate) cause: Cause,
    pub(crate) waiting_on: Option<&'r str>,
    pub(crate) split: Option<&'r TimeBreakdown>,
    pub(crate) stack: Option<&'r Stack>,
    pub(crate) no_stack: Option<&'static str>,
    pub(crate) runtime: Option<&'r RuntimeSnapshot>,
    pub(crate) suppressed: u64,
}

impl Incident<'_> {
    /// Writes the breakdown of the time, and what the thread waits on.
    pub(super) fn write_causes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(split) = self.split {
            write!(f, ", {split}")?;
        }
        match (self.waiting_on, self.cause) {
            (Some(time), Cause::Blocked(call)) if call.resource == Resource::Clock => {
                write!(f, ", sleeping {time}")
            }
            (Some(resource), _) => write!(f, ", waiting on {}", resource.escape_debug()),
            (None, _) => Ok(()),
        }
    }

    /// Writes why the stack is missing, the number of suppressed reports, the runtime and the hint.
    pub(super) fn write_end(
        &self,
        f: &mut fmt::Formatter<'_>,
        runtime: Option<&dyn fmt::Display>,
        hint: &str,
    ) -> fmt::Result {
        if let Some(reason) = self.no_stack {
            write!(f, ", no whole stack: {reason}")?;
        }
        if self.suppressed > 0 {
            write!(f, ", {} more suppressed", self.suppressed)?;
        }
        if let Some(runtime) = runtime {
            write!(f, "; {runtime}")?;
        }
        write!(f, "; {hint}")?;
        match self.stack {
            Some(stack) => write!(f, "\n{stack}"),
            None => Ok(()),
        }
    }
}

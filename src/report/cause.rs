//! Why a poll was slow, and how its time divides.

use std::fmt;
use std::time::Duration;

/// Says why a poll was slow, as far as the crate can prove it.
///
/// A later version may add causes: match with a wildcard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The poll used the processor.
    Computing,
    /// The poll waited in a system call.
    Blocked(Syscall),
    /// The thread was runnable, and the operating system did not schedule it. Such polls are counted and not
    /// reported.
    Starved,
    /// The whole process was suspended: stopped, traced, or on a paused machine. Such polls are counted and not
    /// reported.
    Suspended,
    /// The cause is unknown.
    #[default]
    Unknown,
}

/// Names the system call that a poll waited in. `Display` prints the name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Syscall {
    /// The name. `None` if no scan saw the poll wait, or if it waited outside of a system call, for instance for
    /// a page of memory.
    pub name: Option<&'static str>,
    /// The kind of resource that the call waits on.
    pub(crate) resource: Resource,
}

/// The kind of resource that a system call waits on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Resource {
    #[default]
    Unknown,
    /// A sleep.
    Clock,
    /// A word of memory that another thread changes: a lock, a channel, the end of a thread.
    Futex,
    Socket,
    /// A pipe or a FIFO.
    Pipe,
    File,
    /// A terminal or another device.
    Device,
    Process,
    /// Several descriptors at once, as an event loop does.
    Events,
}

impl Cause {
    /// Returns the cause in one word: the value of the metrics' label `cause`.
    pub fn label(&self) -> &'static str {
        match self {
            Cause::Computing => "computing",
            Cause::Blocked(_) => "blocked",
            Cause::Starved => "starved",
            Cause::Suspended => "suspended",
            Cause::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Blocked(call) if call.name.is_some() => write!(f, "blocked in {call}"),
            other => f.write_str(other.label()),
        }
    }
}

impl fmt::Display for Syscall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name.unwrap_or("an unknown system call"))
    }
}

/// Divides the observed time of a poll: from the first scan that saw it, which precedes the end of its budget, to
/// the report.
///
/// `Display` prints the three parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimeBreakdown {
    /// The time on a processor.
    pub on_cpu: Duration,
    /// The time in which the thread waited for something.
    pub blocked: Duration,
    /// The time in which the thread was runnable and not scheduled.
    pub starved: Duration,
}

impl TimeBreakdown {
    /// Returns the sum of the three parts: the observed time.
    pub fn observed(&self) -> Duration {
        self.on_cpu + self.blocked + self.starved
    }

    pub(crate) fn from_nanos(on_cpu: u64, blocked: u64, starved: u64) -> Self {
        Self {
            on_cpu: Duration::from_nanos(on_cpu),
            blocked: Duration::from_nanos(blocked),
            starved: Duration::from_nanos(starved),
        }
    }
}

impl fmt::Display for TimeBreakdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            on_cpu,
            blocked,
            starved,
        } = self;
        write!(
            f,
            "{on_cpu:.1?} on cpu, {blocked:.1?} blocked, {starved:.1?} starved"
        )
    }
}

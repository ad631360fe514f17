//! Floor 1: why a poll was slow, and how its time divides.

use std::fmt;
use std::time::Duration;

/// Why a poll was slow, as far as it is known.
///
/// Causes may be added; match with a wildcard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// It used the processor.
    Computing,
    /// It waited in a system call.
    Blocked(Syscall),
    /// It could have run, and the operating system did not run it. Such polls are counted, and not
    /// reported.
    Starved,
    /// The whole process was not run: stopped, traced, or on a machine that was paused. Such polls
    /// are counted, and not reported.
    Suspended,
    /// It is not known.
    #[default]
    Unknown,
}

/// A system call that a poll waited in. `Display` prints its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Syscall {
    /// Its name. `None` if the poll was not looked at while it waited, or waited in none: for a page
    /// of memory, say.
    pub name: Option<&'static str>,
    /// What kind of thing it waited for.
    pub(crate) target: Target,
}

/// What a system call is made on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    #[default]
    Unknown,
    /// Time.
    Clock,
    /// A word of memory that another thread changes: a lock, a channel, a thread's end.
    Word,
    Socket,
    /// Named or not.
    Pipe,
    File,
    /// A terminal or another device.
    Device,
    Process,
    /// Several descriptors at once: another event loop.
    Events,
}

impl Cause {
    /// In one word, as the metrics have it in the label `cause`.
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

/// How the time of a poll divides, over the part of it that was observed: from the moment when the
/// sentinel first saw it, which is before its budget ends, to the report.
///
/// `Display` prints the three in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Split {
    /// It had a processor.
    pub on_cpu: Duration,
    /// It waited for something.
    pub blocked: Duration,
    /// It could have run, and was not.
    pub starved: Duration,
}

impl Split {
    /// The observed part.
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

impl fmt::Display for Split {
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

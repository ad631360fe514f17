//! The messages of the service to its driver: one line of JSON each, on its standard output.

use serde::{Deserialize, Serialize};

/// The number of a thread or task, as the standard library and tokio format it; empty if there is none.
pub(crate) type Id = String;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum News {
    /// The service listens at these addresses.
    Serves { service: String, metrics: String },
    /// A poll is about to hold its thread.
    Stall(Stall),
    /// That poll released its thread.
    Over { thread: Id, at: u64 },
    /// The watchdog reports a poll.
    Slow {
        report: u64,
        ended: bool,
        watch: String,
        task: Id,
        text: String,
    },
    /// The watchdog reports a worker, with its stuck milliseconds.
    Stuck {
        report: u64,
        ended: bool,
        thread: Id,
        at: u64,
        millis: u64,
        text: String,
    },
    /// The counts of one watch.
    Count { watch: String, count: Count },
    /// The end of the counts, with the number of interrupted system calls and the allocated bytes.
    Counted { interrupted: u64, allocated: u64 },
    /// Whether all reports were delivered.
    Flushed { whole: bool },
}

/// A stall on purpose. Times are in milliseconds from the start of the service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Stall {
    /// `None` if no watch is around it, so that only the runtime's guard can report it.
    pub(crate) watch: Option<String>,
    pub(crate) task: Id,
    pub(crate) thread: Id,
    pub(crate) at: u64,
    /// For a person who reads the log.
    pub(crate) how: String,
}

/// The polls of a watch, as the service counts them without its watchdog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Count {
    pub(crate) began: u64,
    pub(crate) ended: u64,
    /// Long destructors, which the watchdog may count as slow polls.
    pub(crate) long_drops: u64,
}

//! The thread of a poll.

use std::fmt;
use std::sync::Arc;
use std::thread::ThreadId;

/// Names the thread of a poll. `Display` prints its name, or else its id.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThreadInfo {
    /// The name that the thread got from its builder.
    pub name: Option<Arc<str>>,
    /// The id of the thread in the process.
    pub id: ThreadId,
}

impl ThreadInfo {
    pub(crate) fn current() -> Self {
        let thread = std::thread::current();
        Self {
            name: thread.name().map(Arc::from),
            id: thread.id(),
        }
    }
}

impl fmt::Display for ThreadInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name),
            None => write!(f, "{:?}", self.id),
        }
    }
}

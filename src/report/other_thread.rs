//! Another thread, in the report of a stall that escalated.

use std::fmt;
use std::sync::Arc;

use super::ThreadInfo;
use crate::stack::Stack;

/// Describes another thread with polls in flight while a poll was stalled.
///
/// `Display` prints the thread, the watches of its polls and its stack.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OtherThread {
    /// The thread.
    pub thread: ThreadInfo,
    /// The names of the watches of its polls in flight, outermost first.
    pub watches: Vec<Arc<str>>,
    /// The stack of the thread.
    pub stack: Option<Stack>,
    /// Why there is no stack, or only its innermost functions.
    pub no_stack: Option<&'static str>,
}

impl fmt::Display for OtherThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "other thread {}: {}", self.thread, join(&self.watches))?;
        if let Some(reason) = self.no_stack {
            write!(f, ", no whole stack: {reason}")?;
        }
        match &self.stack {
            Some(stack) => write!(f, "\n{stack}"),
            None => Ok(()),
        }
    }
}

/// Joins names of watches, escaped: a name may hold a line break, and a log line must not.
fn join(watches: &[Arc<str>]) -> String {
    let names: Vec<_> = watches
        .iter()
        .map(|name| name.escape_debug().to_string())
        .collect();
    names.join(" > ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_without_a_stack_is_one_line() {
        let thread = ThreadInfo {
            name: Some("worker".into()),
            id: std::thread::current().id(),
        };
        let other = OtherThread {
            thread,
            watches: ["outer".into(), "in\nner".into()].into(),
            stack: None,
            no_stack: None,
        };
        let line = "other thread worker: outer > in\\nner";
        assert_eq!(other.to_string(), line);
        let no_stack = Some("it is not scheduled");
        let other = OtherThread { no_stack, ..other };
        let line = format!("{line}, no whole stack: it is not scheduled");
        assert_eq!(other.to_string(), line);
    }
}

//! What is done about what stays stuck.

use std::fmt;

use crate::report::{Reporter, SlowPoll};

/// What is done about a poll that is stuck for long, see [`Builder::escalate`](crate::Builder::escalate).
#[non_exhaustive]
pub enum Escalation {
    /// Tells all reporters once more, with the stacks of every other thread that has polls in flight
    /// ([`SlowPoll::others`]).
    Stacks,
    /// Calls a function, on a thread of its own. Made by [`call`](Self::call).
    Call(Box<dyn Reporter>),
    /// Ends the process by `SIGABRT`, sent to the stuck thread, so that a core dump shows it first.
    /// Only if the poll is still stuck at a second look, a tenth of a second later. One line on
    /// standard error says why.
    Abort,
}

impl Escalation {
    /// Calls a function, on a thread of its own.
    pub fn call<F>(function: F) -> Self
    where
        F: Fn(&SlowPoll) + Send + 'static,
    {
        Escalation::Call(Box::new(function))
    }
}

impl fmt::Debug for Escalation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Escalation::Stacks => "Stacks",
            Escalation::Call(_) => "Call",
            Escalation::Abort => "Abort",
        })
    }
}

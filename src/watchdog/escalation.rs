//! Actions for a stall that lasts.

use std::fmt;

use crate::report::{Reporter, SlowPoll};

/// Selects what [`WatchdogBuilder::escalate`](crate::WatchdogBuilder::escalate) does about a stall that lasts.
pub struct Escalation {
    pub(super) kind: EscalationKind,
}

pub(super) enum EscalationKind {
    Stacks,
    Call(Box<dyn Reporter>),
    Abort,
}

#[allow(
    non_upper_case_globals,
    reason = "they read like the variants of an enum"
)]
impl Escalation {
    /// Reports the poll once more to all reporters, with the stacks of all other threads that have polls in flight
    /// ([`SlowPoll::other_threads`]).
    pub const Stacks: Self = Self {
        kind: EscalationKind::Stacks,
    };

    /// Ends the process by `SIGABRT`, sent to the stalled thread, so that a core dump shows it first.
    ///
    /// The sentinel checks twice, 100 ms apart, that the poll is still stalled. One line on standard error gives the
    /// reason.
    pub const Abort: Self = Self {
        kind: EscalationKind::Abort,
    };

    /// Calls a function, on a thread of its own.
    ///
    /// # Examples
    ///
    /// ```
    /// use shotclock::{Escalation, Watchdog};
    /// use std::time::Duration;
    ///
    /// let watchdog = Watchdog::builder()
    ///     .escalate(Duration::from_secs(5), Escalation::call(|slow| eprintln!("{slow}")))
    ///     .build()?;
    /// # drop(watchdog);
    /// # Ok::<(), shotclock::Error>(())
    /// ```
    pub fn call<F>(function: F) -> Self
    where
        F: Fn(&SlowPoll) + Send + 'static,
    {
        Self {
            kind: EscalationKind::Call(Box::new(function)),
        }
    }
}

impl fmt::Debug for Escalation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            EscalationKind::Stacks => "Stacks",
            EscalationKind::Call(_) => "Call",
            EscalationKind::Abort => "Abort",
        })
    }
}

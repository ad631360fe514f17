//! The default reporter: a `tracing` event at WARN, inside the span of the poll.

use std::fmt;
use std::time::Duration;

use tracing::subscriber::NoSubscriber;
use tracing::{Dispatch, dispatcher};

use super::{Phase, Reporter, SlowPoll, StuckWorker};
use crate::cause::Cause;

/// Logs to the subscriber of the span around the poll; without a span, to the one that was current
/// where the watchdog was built; if there was none, to the one that was current at the poll; and at
/// last to whatever the process has by then, which may have been installed after everything else.
pub(crate) struct TracingReporter {
    at_build: Option<Dispatch>,
    /// To stderr while the process has no subscriber at all.
    or_stderr: bool,
}

impl TracingReporter {
    pub(crate) fn new(or_stderr: bool) -> Self {
        Self {
            or_stderr,
            at_build: real(&dispatcher::get_default(Dispatch::clone)),
        }
    }

    fn writes_itself(&self) -> bool {
        self.or_stderr && !dispatcher::has_been_set()
    }

    fn subscriber(&self, slow: &SlowPoll) -> Option<Dispatch> {
        let at_poll = real(&slow.context.dispatch);
        if slow.context.span.is_none() {
            self.at_build.clone().or(at_poll)
        } else {
            at_poll
        }
    }
}

fn real(dispatch: &Dispatch) -> Option<Dispatch> {
    (!dispatch.is::<NoSubscriber>()).then(|| dispatch.clone())
}

impl Reporter for TracingReporter {
    fn on_slow_poll(&self, slow: &SlowPoll) {
        match self.subscriber(slow) {
            Some(dispatch) => dispatcher::with_default(&dispatch, || log(slow)),
            None if self.writes_itself() => eprintln!("shotclock: {slow}"),
            None => log(slow),
        }
    }

    fn on_stuck_worker(&self, stuck: &StuckWorker) {
        match &self.at_build {
            Some(dispatch) => dispatcher::with_default(dispatch, || log_worker(stuck)),
            None if self.writes_itself() => eprintln!("shotclock: {stuck}"),
            None => log_worker(stuck),
        }
    }
}

/// To the microsecond: more digits are noise.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn log(slow: &SlowPoll) {
    let stack = slow.stack.as_ref();
    slow.context.span.in_scope(|| {
        tracing::warn!(
            target: "shotclock",
            watch = &*slow.watch,
            path = (!slow.path.is_empty()).then(|| tracing::field::display(&slow.path)),
            elapsed_ms = milliseconds(slow.elapsed),
            own_ms = (slow.own != slow.elapsed).then(|| milliseconds(slow.own)),
            budget_ms = milliseconds(slow.budget),
            cause = (slow.cause != Cause::Unknown).then(|| tracing::field::display(&slow.cause)),
            waits_for = slow.waits_for.as_deref(),
            location = %slow.location,
            stack = stack.map(|stack| tracing::field::display(stack.one_line())),
            task = slow.task.map(tracing::field::display),
            thread = %slow.thread,
            allowance = slow.allowance.as_ref().map(|allowance| &*allowance.reason),
            impact = slow.impact.as_ref().map(tracing::field::display),
            hint = slow.hint(),
            suppressed = (slow.suppressed > 0).then_some(slow.suppressed),
            poll_id = slow.id,
            "{}", Headline(slow)
        );
    });
}

fn log_worker(stuck: &StuckWorker) {
    let stack = stuck.stack.as_ref();
    tracing::warn!(
        target: "shotclock",
        worker = stuck.worker,
        path = (!stuck.path.is_empty()).then(|| tracing::field::display(&stuck.path)),
        elapsed_ms = milliseconds(stuck.elapsed),
        budget_ms = milliseconds(stuck.budget),
        cause = (stuck.cause != Cause::Unknown).then(|| tracing::field::display(&stuck.cause)),
        waits_for = stuck.waits_for.as_deref(),
        stack = stack.map(|stack| tracing::field::display(stack.one_line())),
        thread = stuck.thread.as_ref().map(tracing::field::display),
        runtime = &*stuck.runtime,
        impact = stuck.impact.as_ref().map(tracing::field::display),
        hint = stuck.hint(),
        suppressed = (stuck.suppressed > 0).then_some(stuck.suppressed),
        poll_id = stuck.id,
        "{}", match stuck.phase {
            Phase::Running => "worker is stuck",
            Phase::Finished => "worker was stuck",
        }
    );
}

struct Headline<'s>(&'s SlowPoll);

impl fmt::Display for Headline<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.0.kind;
        match self.0.phase {
            Phase::Running => write!(f, "{kind} is stuck"),
            Phase::Finished => write!(f, "slow {kind}"),
        }
    }
}

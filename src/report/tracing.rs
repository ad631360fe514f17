//! The default reporter: a `tracing` event at WARN, inside the span of the poll.

use std::cell::RefCell;
use std::fmt;
use std::time::{Duration, Instant};

use tracing::subscriber::NoSubscriber;
use tracing::{Dispatch, dispatcher};

use super::again::{Again, Length};
use super::culprit::Accusation;
use super::{Phase, Reporter, SlowPoll, StuckWorker};
use crate::cause::Cause;
use crate::runtime::StuckKind;

/// Logs to the subscriber of the span around the poll; without a span, to the one that was current
/// where the watchdog was built; if there was none, to the one that was current at the poll; and at
/// last to whatever the process has by then, which may have been installed after everything else.
pub(crate) struct TracingReporter {
    at_build: Option<Dispatch>,
    /// What was told of late.
    again: RefCell<Again>,
    /// To stderr while the process has no subscriber at all.
    or_stderr: bool,
}

impl TracingReporter {
    pub(crate) fn new(or_stderr: bool) -> Self {
        Self {
            again: RefCell::default(),
            or_stderr,
            at_build: real(&dispatcher::get_default(Dispatch::clone)),
        }
    }

    /// How often the same function was told since its stack was; `None` if its stack is to be told now.
    fn again(&self, accusation: Option<Accusation<'_>>) -> Option<u64> {
        let mut again = self.again.borrow_mut();
        match again.length(accusation.as_ref(), Instant::now()) {
            Length::Whole => None,
            Length::Short(times) => Some(times),
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
        let again = self.again(Accusation::of_poll(slow));
        match self.subscriber(slow) {
            Some(dispatch) => dispatcher::with_default(&dispatch, || log(slow, again)),
            None if self.writes_itself() => write(slow, again),
            None => log(slow, again),
        }
    }

    fn on_stuck_worker(&self, stuck: &StuckWorker) {
        let again = self.again(Accusation::of_worker(stuck));
        match &self.at_build {
            Some(dispatch) => dispatcher::with_default(dispatch, || log_worker(stuck, again)),
            None if self.writes_itself() => write(stuck, again),
            None => log_worker(stuck, again),
        }
    }
}

/// To the microsecond: more digits are noise.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// To stderr, in short the first line.
fn write(report: &impl fmt::Display, again: Option<u64>) {
    let text = report.to_string();
    match (again, text.lines().next()) {
        (Some(times), Some(line)) => eprintln!("shotclock: {line} (again, {times} times)"),
        _ => eprintln!("shotclock: {text}"),
    }
}

fn log(slow: &SlowPoll, again: Option<u64>) {
    let stack = slow.stack.as_ref().filter(|_| again.is_none());
    slow.context.span.in_scope(|| {
        tracing::warn!(
            target: "shotclock",
            watch = &*slow.watch,
            path = (!slow.path.is_empty()).then(|| tracing::field::display(&slow.path)),
            elapsed_ms = milliseconds(slow.elapsed),
            charged_ms = (slow.charged != slow.elapsed).then(|| milliseconds(slow.charged)),
            budget_ms = milliseconds(slow.budget),
            cause = (slow.cause != Cause::Unknown).then(|| tracing::field::display(&slow.cause)),
            waits_for = slow.waits_for.as_deref(),
            location = %slow.location,
            stack = stack.map(|stack| tracing::field::display(stack.one_line())),
            no_stack = slow.no_stack,
            task = slow.task.map(tracing::field::display),
            thread = %slow.thread,
            allowance = slow.allowance.as_ref().map(|allowance| &*allowance.reason),
            impact = slow.impact.as_ref().map(tracing::field::display),
            hint = again.is_none().then(|| slow.hint()),
            again,
            suppressed = (slow.suppressed > 0).then_some(slow.suppressed),
            poll_id = slow.id,
            "{}", Headline(slow)
        );
    });
}

fn log_worker(stuck: &StuckWorker, again: Option<u64>) {
    let stack = stuck.stack.as_ref().filter(|_| again.is_none());
    tracing::warn!(
        target: "shotclock",
        worker = stuck.worker,
        path = (!stuck.path.is_empty()).then(|| tracing::field::display(&stuck.path)),
        elapsed_ms = milliseconds(stuck.elapsed),
        budget_ms = milliseconds(stuck.budget),
        cause = (stuck.cause != Cause::Unknown).then(|| tracing::field::display(&stuck.cause)),
        waits_for = stuck.waits_for.as_deref(),
        stack = stack.map(|stack| tracing::field::display(stack.one_line())),
        no_stack = stuck.no_stack,
        thread = stuck.thread.as_ref().map(tracing::field::display),
        runtime = &*stuck.runtime,
        impact = stuck.impact.as_ref().map(tracing::field::display),
        hint = again.is_none().then(|| stuck.hint()),
        again,
        suppressed = (stuck.suppressed > 0).then_some(stuck.suppressed),
        poll_id = stuck.id,
        "{}", match (stuck.kind, stuck.phase) {
            (StuckKind::OnePoll, Phase::Running) => "worker is stuck in one poll",
            (StuckKind::OnePoll, Phase::Finished) => "worker was stuck in one poll",
            (_, Phase::Running) => "worker is busy without returning to its driver, in one poll or in many",
            (_, Phase::Finished) => "worker was busy without returning to its driver, in one poll or in many",
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

//! The default reporter: one `tracing` event at WARN for each report.

use std::cell::RefCell;
use std::fmt;
use std::time::{Duration, Instant};

use tracing::subscriber::NoSubscriber;
use tracing::{Dispatch, dispatcher};

use super::culprit_sample::CulpritSample;
use super::repetition::Repetitions;
use crate::report::{
    Cause, Incident, Phase, Reporter, RuntimeSnapshot, SlowPoll, StuckKind, StuckWorker,
};

/// Logs each report to one subscriber.
///
/// A report of a poll with a span goes to the span's subscriber, inside the span. Otherwise it goes to the subscriber
/// that was current where the watchdog was built, or else to the one that was current at the poll. The last choice is
/// the subscriber of the process, which may be installed later than everything else.
pub(crate) struct TracingReporter {
    at_build: Option<Dispatch>,
    repetitions: RefCell<Repetitions>,
    /// Whether to write to stderr while the process has no subscriber at all.
    stderr_without_subscriber: bool,
}

impl TracingReporter {
    pub(crate) fn new(stderr_without_subscriber: bool) -> Self {
        Self {
            repetitions: RefCell::default(),
            stderr_without_subscriber,
            at_build: real(&dispatcher::get_default(Dispatch::clone)),
        }
    }

    /// Counts the polls of this culprit since its stack was logged. `None` if the stack is due.
    fn repetition(&self, culprit: Option<CulpritSample<'_>>) -> Option<u64> {
        let mut repetitions = self.repetitions.borrow_mut();
        repetitions.count(&culprit?, Instant::now())
    }

    fn subscriber(&self, slow: &SlowPoll) -> Option<Dispatch> {
        let at_poll = real(&slow.context.dispatch);
        if slow.context.span.is_none() {
            self.at_build.clone().or(at_poll)
        } else {
            at_poll
        }
    }

    fn log(&self, subscriber: Option<Dispatch>, event: &Event<'_>) {
        match subscriber {
            Some(dispatch) => dispatcher::with_default(&dispatch, || event.log()),
            None if self.stderr_without_subscriber && !dispatcher::has_been_set() => event.write(),
            None => event.log(),
        }
    }
}

fn real(dispatch: &Dispatch) -> Option<Dispatch> {
    (!dispatch.is::<NoSubscriber>()).then(|| dispatch.clone())
}

impl Reporter for TracingReporter {
    fn on_slow_poll(&self, slow: &SlowPoll) {
        let event = Event {
            incident: slow.incident(),
            subject: Subject::Poll(slow),
            repetition: self.repetition(CulpritSample::of_poll(slow)),
        };
        self.log(self.subscriber(slow), &event);
    }

    fn on_stuck_worker(&self, stuck: &StuckWorker) {
        let event = Event {
            incident: stuck.incident(),
            subject: Subject::Worker(stuck),
            repetition: self.repetition(CulpritSample::of_worker(stuck)),
        };
        self.log(self.at_build.clone(), &event);
    }
}

/// One line of the log.
struct Event<'r> {
    incident: Incident<'r>,
    subject: Subject<'r>,
    repetition: Option<u64>,
}

/// The fields that only one of the two kinds of report has.
#[derive(Clone, Copy)]
enum Subject<'r> {
    Poll(&'r SlowPoll),
    Worker(&'r StuckWorker),
}

impl Event<'_> {
    fn log(&self) {
        match self.subject {
            Subject::Poll(slow) => slow.context.span.in_scope(|| self.emit()),
            Subject::Worker(_) => self.emit(),
        }
    }

    fn emit(&self) {
        let Incident {
            path,
            cause,
            split: _,
            stack,
            runtime,
            suppressed,
            ..
        } = self.incident;
        let is_first = self.repetition.is_none();
        let (slow, stuck) = match self.subject {
            Subject::Poll(slow) => (Some(slow), None),
            Subject::Worker(stuck) => (None, Some(stuck)),
        };
        let runtime_name = match stuck {
            Some(stuck) => Some(&*stuck.runtime),
            None => runtime.map(|runtime| &*runtime.runtime),
        };
        tracing::warn!(
            target: "shotclock",
            watch = slow.map(|slow| &*slow.watch),
            worker = stuck.map(|stuck| stuck.worker),
            path = (!path.is_empty()).then(|| tracing::field::display(path)),
            elapsed_ms = milliseconds(self.incident.elapsed),
            charged_ms = slow.filter(|slow| slow.charged != slow.elapsed).map(|slow| milliseconds(slow.charged)),
            budget_ms = milliseconds(self.incident.budget),
            cause = (cause != Cause::Unknown).then(|| tracing::field::display(&cause)),
            waiting_on = self.incident.waiting_on,
            location = slow.map(|slow| tracing::field::display(slow.location)),
            stack = stack.filter(|_| is_first).map(|stack| tracing::field::display(stack.one_line())),
            no_stack = self.incident.no_stack,
            task = slow.and_then(|slow| slow.task).map(tracing::field::display),
            thread = self.incident.thread.map(tracing::field::display),
            allowance = slow.and_then(|slow| slow.allowance.as_ref()).map(|allowance| &*allowance.reason),
            runtime = runtime_name,
            runtime_state = runtime.map(RuntimeSnapshot::without_name).map(tracing::field::display),
            hint = is_first.then(|| self.subject.advice()),
            repetition = self.repetition,
            suppressed = (suppressed > 0).then_some(suppressed),
            report_id = self.incident.id,
            "{}", self.subject.headline(self.incident.phase)
        );
    }

    /// Writes the report to stderr. A repetition gets only the first line.
    fn write(&self) {
        let text = self.subject.to_string();
        match (self.repetition, text.lines().next()) {
            (Some(times), Some(line)) => eprintln!("shotclock: {line} (repetition {times})"),
            _ => eprintln!("shotclock: {text}"),
        }
    }
}

impl Subject<'_> {
    fn advice(&self) -> String {
        match self {
            Subject::Poll(slow) => slow.advice(),
            Subject::Worker(stuck) => stuck.advice(),
        }
    }

    fn headline(&self, phase: Phase) -> String {
        match (self, phase) {
            (Subject::Poll(slow), Phase::Running) => format!("stalled {}", slow.kind),
            (Subject::Poll(slow), Phase::Finished) => format!("slow {}", slow.kind),
            (Subject::Worker(stuck), phase) => {
                let verb = match phase {
                    Phase::Running => "is",
                    Phase::Finished => "was",
                };
                match stuck.kind {
                    StuckKind::OnePoll => format!("worker {verb} stuck in one poll"),
                    StuckKind::Busy => format!(
                        "worker {verb} busy without returning to its driver, in one poll or in many"
                    ),
                }
            }
        }
    }
}

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Poll(slow) => slow.fmt(f),
            Subject::Worker(stuck) => stuck.fmt(f),
        }
    }
}

/// Rounds to the microsecond: more digits are noise.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

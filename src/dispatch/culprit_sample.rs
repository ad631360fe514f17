//! Finds the culprit of a report: the function to which its time is added.

use std::sync::Arc;
use std::time::Duration;

use crate::report::{Cause, Frame, Incident, Phase, SlowPoll, Stack, StuckKind, StuckWorker};

/// Reports with the same identity have the same culprit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) watch: Arc<str>,
    pub(crate) cause: Cause,
    pub(crate) function: Arc<str>,
}

/// The culprit of one report, with its time.
pub(crate) struct CulpritSample<'r> {
    pub(crate) id: u64,
    pub(crate) identity: Identity,
    pub(crate) place: Option<String>,
    pub(crate) stack: &'r Stack,
    /// The watches around, outermost first.
    pub(crate) path: Vec<&'r str>,
    /// The time over budget so far.
    pub(crate) over_budget: Duration,
    pub(crate) has_ended: bool,
}

impl<'r> CulpritSample<'r> {
    /// Returns `None` for a report without a stack.
    pub(super) fn of_poll(slow: &'r SlowPoll) -> Option<Self> {
        Self::new(slow.incident(), Arc::clone(&slow.watch), slow.charged)
    }

    /// Returns `None` for a report without a stack, and for a worker that is not proved to be in one poll.
    pub(super) fn of_worker(stuck: &'r StuckWorker) -> Option<Self> {
        let is_proved = stuck.kind == StuckKind::OnePoll;
        let watch = format!("worker of {}", stuck.runtime).into();
        is_proved.then(|| Self::new(stuck.incident(), watch, stuck.elapsed))?
    }

    fn new(incident: Incident<'r>, watch: Arc<str>, charged: Duration) -> Option<Self> {
        let stack = incident.stack?;
        let culprit = culprit_of(stack);
        Some(Self {
            id: incident.id,
            identity: Identity {
                watch,
                cause: incident.cause,
                function: culprit.map_or_else(|| "unknown".into(), Frame::name),
            },
            place: culprit.and_then(Frame::place),
            stack,
            path: incident.path.iter().collect(),
            over_budget: charged.saturating_sub(incident.budget),
            has_ended: incident.phase == Phase::Finished,
        })
    }
}

/// Returns the innermost function of the program.
///
/// The compiler may have inlined all of these into libraries. Then it is the function of the standard library that the
/// program called, or else the innermost of all.
fn culprit_of(stack: &Stack) -> Option<&Frame> {
    let frames = stack.frames_of_poll();
    let own = frames.iter().find(|frame| !frame.is_foreign());
    let called = || frames.iter().take_while(|frame| frame.is_std()).last();
    own.or_else(called).or(frames.first())
}

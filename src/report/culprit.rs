//! Which function held the worker: what reports are added up by.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{SlowPoll, StuckWorker};
use crate::cause::Cause;
use crate::runtime::StuckKind;
use crate::stack::{Frame, Stack};

/// A function that held a worker past its budget, and how often and for how long.
///
/// Made by [`Watchdog::culprits`](crate::Watchdog::culprits).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Culprit {
    /// The name of the watch; of a worker of a guarded runtime `worker of` and the name of that.
    pub watch: Arc<str>,
    /// Why.
    pub cause: Cause,
    /// The innermost function of the program's own on the stack. Where there is none, because the compiler
    /// has inlined them, the function of the standard library that was called, or the innermost of all.
    /// Without a symbol, the program or library it is in.
    pub function: Arc<str>,
    /// The source file and line in there, where it was last, if the program has debug information.
    pub place: Option<Arc<str>>,
    /// In how many polls it was seen.
    pub count: u64,
    /// For how long those went past their budgets together, until it was seen there. One poll that computes may
    /// have several culprits, which share its time.
    pub over_budget: Duration,
    /// When it was last reported.
    pub last_seen: SystemTime,
}

/// Whose reports are the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) watch: Arc<str>,
    pub(super) cause: Cause,
    pub(super) function: Arc<str>,
}

/// What a report says of its culprit.
pub(super) struct Accusation<'r> {
    pub(super) id: u64,
    pub(super) identity: Identity,
    pub(super) place: Option<String>,
    pub(super) stack: &'r Stack,
    /// The watches around, outermost first.
    pub(super) path: Vec<&'r str>,
    /// So far.
    pub(super) over_budget: Duration,
    pub(super) is_over: bool,
}

impl<'r> Accusation<'r> {
    /// `None` of a report without a stack.
    pub(super) fn of_poll(slow: &'r SlowPoll) -> Option<Self> {
        let stack = slow.stack.as_ref()?;
        Some(Self {
            id: slow.id,
            identity: identity(Arc::clone(&slow.watch), slow.cause, stack),
            place: culprit_of(stack).and_then(Frame::place),
            stack,
            path: slow.path.iter().collect(),
            over_budget: slow.charged.saturating_sub(slow.budget),
            is_over: slow.phase == super::Phase::Finished,
        })
    }

    pub(super) fn of_worker(stuck: &'r StuckWorker) -> Option<Self> {
        // A function is accused only of what is proved.
        let is_proved = stuck.kind == StuckKind::OnePoll;
        let stack = stuck.stack.as_ref().filter(|_| is_proved)?;
        let watch = format!("worker of {}", stuck.runtime);
        Some(Self {
            id: stuck.id,
            identity: identity(watch.into(), stuck.cause, stack),
            place: culprit_of(stack).and_then(Frame::place),
            stack,
            path: stuck.path.iter().collect(),
            over_budget: stuck.elapsed.saturating_sub(stuck.budget),
            is_over: stuck.phase == super::Phase::Finished,
        })
    }
}

fn identity(watch: Arc<str>, cause: Cause, stack: &Stack) -> Identity {
    Identity {
        watch,
        cause,
        function: culprit_of(stack).map_or_else(|| "unknown".into(), Frame::name),
    }
}

/// The innermost function of the program's own. Where all of those were inlined into the libraries around
/// them, the function of the standard library that was called; at last, the innermost of all.
fn culprit_of(stack: &Stack) -> Option<&Frame> {
    let frames = stack.frames_of_poll();
    let own = frames.iter().find(|frame| !frame.is_foreign());
    let called = || frames.iter().take_while(|frame| frame.is_std()).last();
    own.or_else(called).or(frames.first())
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            watch,
            cause,
            function,
            count,
            over_budget,
            ..
        } = self;
        write!(f, "{function} of {watch:?}: {count} times, ")?;
        write!(f, "{over_budget:.1?} over budget, {cause}")?;
        match &self.place {
            Some(place) => write!(f, " ({place})"),
            None => Ok(()),
        }
    }
}

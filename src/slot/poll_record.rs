//! What is noted of one poll that was looked at while it ran.

use std::fmt;
use std::sync::Arc;

use super::slot_owner::ThreadInfo;
use crate::attribution::{CpuSample, CpuSamples};
use crate::cause::{Cause, Split};
use crate::procfs::SchedCounts;
use crate::stack::Stack;

/// What has been told of one poll.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum ReportState {
    #[default]
    Unreported,
    /// It was reported while it ran, under this id.
    Running { id: u64 },
    /// It was to be reported while it ran, and the limit of the second was reached.
    Suppressed,
    /// It has ended, and whoever ended it says what there is to say.
    Ended,
}

/// Another thread, at the moment when a poll was stuck. `Display` prints the thread, its polls and
/// its stack.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OtherThread {
    /// The thread.
    pub thread: ThreadInfo,
    /// The names of the watches of its polls in flight, outermost first.
    pub watches: Vec<Arc<str>>,
    /// What it was doing.
    pub stack: Option<Stack>,
    /// Why there is no stack, or only the innermost functions of it, if that is known.
    pub no_stack: Option<&'static str>,
}

impl fmt::Display for OtherThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "meanwhile on {}: {}", self.thread, names(&self.watches))?;
        if let Some(why) = self.no_stack {
            write!(f, ", no whole stack: {why}")?;
        }
        match &self.stack {
            Some(stack) => write!(f, "\n{stack}"),
            None => Ok(()),
        }
    }
}

fn names(watches: &[Arc<str>]) -> String {
    // A name may hold a line break; a line of a log may not.
    let names: Vec<_> = watches
        .iter()
        .map(|name| name.escape_debug().to_string())
        .collect();
    names.join(" > ")
}

/// What was found of a poll while it was stuck.
#[derive(Clone, Debug, Default)]
pub(crate) struct Diagnosis {
    pub(crate) cause: Cause,
    /// The path or socket behind a file descriptor, or a duration.
    pub(crate) waits_for: Option<Arc<str>>,
    pub(crate) split: Option<Split>,
    pub(crate) stack: Option<Stack>,
    /// The thread was asked for its stack, and did not answer in time: it may the next time.
    pub(crate) is_stack_late: bool,
    /// The thread has handed its worker to another one: nothing waits for this poll but its own task.
    pub(crate) is_handed_over: bool,
    /// Why there is no stack, or only the innermost functions of it.
    pub(crate) no_stack: Option<&'static str>,
    pub(crate) others: Arc<[OtherThread]>,
}

/// A thread that was asked for its stack while it waited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SignalDisturbance {
    /// The number of the system call.
    pub(crate) call: i64,
    /// Before it was asked.
    pub(crate) turns: SchedCounts,
}

/// What is noted of one poll, by its depth.
#[derive(Clone, Debug, Default)]
pub(crate) struct PollRecord {
    pub(super) seq: u64,
    pub(crate) told: ReportState,
    /// When it is to be looked at again, in nanoseconds of its own.
    pub(crate) again_at: u64,
    /// Nor is a step of its escalation to be taken before, in nanoseconds of its own.
    pub(crate) again_for_step: u64,
    /// How many steps of an escalation have been taken.
    pub(crate) steps_taken: usize,
    /// When the first of two looks was made before the process is ended, in nanoseconds of its age.
    pub(crate) condemned_at: Option<u64>,
    /// How often its thread was asked for its stack and did not answer, and when to ask again.
    pub(crate) late_stacks: u32,
    pub(crate) again_for_stack: Option<u64>,
    /// Its thread was asked for its stack while it waited in a call, and may wait for a processor only
    /// because of that.
    pub(crate) disturbed: Option<SignalDisturbance>,
    /// How much of its own time was no code's fault, in nanoseconds, when it was looked at last.
    pub(crate) uncharged: u64,
    /// The latest that was found.
    pub(crate) finding: Option<Diagnosis>,
    /// The accounts before it, if it was seen, and when it was seen first.
    pub(super) seen: Option<(CpuSample, CpuSample)>,
}

impl PollRecord {
    pub(super) fn of(seq: u64) -> Self {
        Self {
            seq,
            ..Self::default()
        }
    }

    /// Of a poll that has ended: nothing can be added to it any more.
    pub(super) fn ended(seq: u64) -> Self {
        Self {
            told: ReportState::Ended,
            ..Self::of(seq)
        }
    }

    /// Whether the last look found that its worker went on without it.
    pub(crate) fn is_handed_over(&self) -> bool {
        let finding = self.finding.as_ref();
        finding.is_some_and(|finding| finding.is_handed_over)
    }

    /// Whether it was reported while it ran.
    pub(crate) fn was_told(&self) -> bool {
        matches!(self.told, ReportState::Running { .. })
    }

    /// The accounts around a poll that began at `start`, up to `now`.
    pub(crate) fn accounts(&self, start: u64, now: CpuSample) -> Option<CpuSamples> {
        let (earlier, seen) = self.seen?;
        let (before, within) = if seen.by <= start {
            (seen, None)
        } else if earlier.by <= start {
            (earlier, Some(seen))
        } else {
            // Both are from within. What the thread has waited since it began is surely enough.
            (CpuSample::BIRTH, Some(earlier))
        };
        Some(CpuSamples {
            before,
            within,
            now,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    /// Taken by somebody who was interrupted between the clock and the account.
    fn account(at: u64, by: u64) -> CpuSample {
        CpuSample {
            at,
            by,
            ..CpuSample::BIRTH
        }
    }

    fn accounts(earlier: CpuSample, seen: CpuSample, start: u64) -> CpuSamples {
        let note = PollRecord {
            seen: Some((earlier, seen)),
            ..PollRecord::default()
        };
        note.accounts(start, account(1_000, 1_000)).unwrap()
    }

    #[test]
    fn an_account_counts_as_of_when_it_was_surely_taken() {
        let (earlier, seen) = (account(100, 150), account(400, 500));
        let (before, within) = (account(100, 150), Some(500));
        for start in [150, 399, 450, 499] {
            let found = accounts(earlier, seen, start);
            assert_eq!((found.before, found.within_since()), (before, within));
        }
        let found = accounts(earlier, seen, 500);
        assert_eq!((found.before, found.within_since()), (seen, None));
        let found = accounts(earlier, seen, 149);
        assert_eq!(
            (found.before, found.within_since()),
            (CpuSample::BIRTH, Some(150))
        );
    }

    #[test]
    fn another_thread_is_told_in_one_line() {
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
        let told = "meanwhile on worker: outer > in\\nner";
        assert_eq!(other.to_string(), told);
        let no_stack = Some("it is not run");
        let other = OtherThread { no_stack, ..other };
        let told = format!("{told}, no whole stack: it is not run");
        assert_eq!(other.to_string(), told);
    }
}

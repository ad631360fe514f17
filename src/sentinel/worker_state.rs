//! The state of one worker between two scans.

use super::poll_breakpoints::{Breakpoints, SampleTarget};
use super::same_poll::{Continuity, Observation};
use super::worker_scan::ScanTools;
use crate::attribution::CpuSample;
use crate::report::StuckKind;
use crate::runtime::WorkerReading;
use crate::slot::{self, Diagnosis, InFlightPoll, ReportState, Slot};
use crate::suspension::SUSPENSIONS;

/// Budgets after which a worker without a proof is reported as busy. tokio's counters stand still for up to 244 polls,
/// which take less on a busy worker.
pub(super) const BUSY_BUDGETS: u64 = 10;

/// Budgets after which the sentinel compares the tasks of such a worker: another task is another poll.
const COMPARED_BUDGETS: u64 = 5;

/// More watched polls than tokio makes between two updates of its counters, by default and with the deepest watches: 244
/// polls and 15 watches. A worker with more runs an executor inside one poll, or has a large `event_interval`.
const MAX_WATCHED_POLLS: u64 = 244 * 15;

/// Numbers the intervals, so that the record of one does not serve another.
pub(super) struct IntervalIds(u64);

impl Default for IntervalIds {
    fn default() -> Self {
        // Above the numbers of a slot's root.
        Self(2)
    }
}

impl IntervalIds {
    fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

/// A time in which a worker was in one state. Its begin is a raw clock reading.
#[derive(Clone, Copy, Default)]
pub(super) struct Interval {
    id: u64,
    pub(super) since: u64,
    /// The CPU samples of the thread from before the begin, and from the begin.
    samples: Option<(CpuSample, CpuSample)>,
}

impl Interval {
    /// Begins an interval at this scan.
    ///
    /// The CPU sample comes after the begin, so it lies within the interval, and what the thread does from then on is
    /// known.
    pub(super) fn begin(slot: Option<&Slot>, tools: &ScanTools<'_>, ids: &mut IntervalIds) -> Self {
        let clock = tools.clock;
        let since = clock.raw();
        Self {
            id: ids.next(),
            since,
            samples: slot.and_then(|slot| slot.diagnostics().sample(clock.raw(), clock)),
        }
    }

    /// Returns the interval in the form of a poll around all others, for the diagnosis.
    pub(super) fn as_poll(&self, budget_nanos: u64) -> InFlightPoll {
        InFlightPoll::of_worker(self.id, self.since, budget_nanos)
    }

    /// Records the samples of the begin, for the diagnosis.
    pub(super) fn mark_seen(&self, slot: &Slot, poll: &InFlightPoll) {
        if let Some((before, now)) = self.samples {
            slot.diagnostics().mark_seen(poll, before, now);
        }
    }
}

/// A worker that counts as stuck or busy.
pub(super) struct StuckState {
    pub(super) kind: StuckKind,
    pub(super) diagnosis: Diagnosis,
    pub(super) elapsed_nanos: u64,
}

/// One worker since its counters last changed.
#[derive(Default)]
pub(super) struct WorkerState {
    pub(super) reading: Option<WorkerReading>,
    pub(super) observation: Observation,
    /// The time in which its counters did not change.
    pub(super) busy: Interval,
    /// The part of it in which the worker is proved to be in one poll.
    pub(super) one_poll: Interval,
    /// The state of the thread's slot when the worker became busy, and at the last scan.
    pub(super) first_state: u64,
    pub(super) state: u64,
    pub(super) breakpoints: Breakpoints,
    /// The type of the task that the stack showed.
    pub(super) task: Option<usize>,
    /// All further times are nanoseconds of the interval `busy`. This is its length now.
    pub(super) elapsed: u64,
    /// When a watched poll last began or ended.
    pub(super) watched_at: u64,
    pub(super) next_diagnosis_at: u64,
    pub(super) next_task_at: u64,
    pub(super) next_report_at: u64,
    /// When the worker was last proved to be stuck.
    pub(super) proved_at: u64,
    /// The number of requests for a stack without an answer.
    pub(super) late_stacks: u32,
    pub(super) stuck: Option<StuckState>,
    pub(super) report_state: ReportState,
}

impl WorkerState {
    /// Returns whether to report the worker as busy, without proof that it is in one poll.
    ///
    /// A watched poll that began or ended shows that the worker goes on, unless there are too many of them.
    pub(super) fn is_long_busy(&self, budget_nanos: u64) -> bool {
        let suspended = SUSPENSIONS.since(self.busy.since);
        let limit = budget_nanos.saturating_mul(BUSY_BUDGETS);
        let is_long = |nanos: u64| nanos.saturating_sub(suspended) > limit;
        let watched_polls = slot::changes_between(self.first_state, self.state) / 2;
        is_long(self.elapsed - self.watched_at)
            || is_long(self.elapsed) && watched_polls > MAX_WATCHED_POLLS
    }

    /// Returns whether a worker without other evidence has come to a task of another type.
    pub(super) fn compare_tasks(
        &mut self,
        target: &mut SampleTarget<'_>,
        budget_nanos: u64,
    ) -> Continuity {
        let due = budget_nanos.saturating_mul(COMPARED_BUDGETS);
        if self.elapsed < self.next_task_at.max(due) {
            return Continuity::Unproved;
        }
        self.next_task_at = self.elapsed + budget_nanos / 2;
        let Some(task) = target.poll_site().and_then(|site| site.task) else {
            return Continuity::Unproved;
        };
        match self.task.replace(task) {
            Some(before) if before != task => Continuity::AnotherPoll,
            _ => Continuity::Unproved,
        }
    }
}

//! Scans the workers of guarded runtimes, and finds those that are stuck or busy.
//!
//! A worker with unchanged counters is *busy*: it has not returned to its driver. It is *stuck* if it is proved to be
//! in one poll for longer than the budget ([`same_poll`](super::same_poll)). The sentinel diagnoses both as it does
//! polls, by the CPU samples and the stack of the thread. An interval begins where a scan first saw it, so its length
//! is a lower bound.

use std::sync::Arc;

use super::diagnose::{Diagnosed, diagnose};
use super::poll_breakpoints::{Breakpoints, PollSites, SampleTarget};
use super::same_poll::{Continuity, Observation};
use super::stack_sampler::StackSampler;
use super::worker_report::{has_reported_stall, has_unknown_thread_reported_stall};
use super::worker_state::{BUSY_BUDGETS, Interval, IntervalIds, StuckState, WorkerState};
use crate::clock::Clock;
use crate::report::{SectionKind, StuckKind};
use crate::runtime::{self, Guarded, Workers};
use crate::slot::{BudgetStatus, Diagnosis, Slot, ThreadKey};
use crate::stack::Stack;
use crate::suspension::SUSPENSIONS;
use crate::watch::{Stacks, is_of_clock};

/// Scans of a worker with unchanged counters within its budget. A proof takes two scans to begin and must last for a
/// budget, so the sentinel reports a blocked worker within 1.5 budgets.
const SCANS_PER_BUDGET: u64 = 10;

/// Repeated diagnoses within a budget of an interval that no code was charged for. Most often the thread had to wait for
/// a processor for a moment, and is over its budget soon after.
const RETRIES_PER_BUDGET: u64 = 20;

/// Checks whether a thread sleeps again after our signal woke it, and the pause between them. Going back to sleep takes
/// some microseconds.
const SLEEP_CHECKS: u32 = 10;
const SLEEP_CHECK_PAUSE: std::time::Duration = std::time::Duration::from_micros(100);

/// The scans of all guarded runtimes.
#[derive(Default)]
pub(super) struct WorkerScans {
    runtimes: Vec<RuntimeScan>,
    shared: SharedState,
}

/// The part that the scans of all runtimes share.
#[derive(Default)]
struct SharedState {
    ids: IntervalIds,
    sites: PollSites,
}

/// The scans of one runtime.
pub(super) struct RuntimeScan {
    pub(super) guarded: Arc<Guarded>,
    pub(super) workers: Arc<Workers>,
    pub(super) states: Vec<WorkerState>,
}

/// The result of a worker's diagnosis.
enum WorkerDiagnosis {
    Stuck(Diagnosis),
    /// The time is charged to no code, so far.
    Excused,
    /// No thread is in `block_on`, so there is no worker.
    NoWorker,
    /// The thread does not run the worker any more.
    AnotherThread,
}

/// The clock and the stack sampler of a scan.
pub(super) struct ScanTools<'m> {
    pub(super) clock: &'m Clock,
    pub(super) sampler: Option<&'m mut StackSampler>,
}

impl WorkerScans {
    /// Scans every worker. Returns the nanoseconds until the next scan.
    pub(super) fn scan(&mut self, tools: &mut ScanTools<'_>) -> Option<u64> {
        self.refresh();
        let Self { runtimes, shared } = self;
        let dues = runtimes
            .iter_mut()
            .map(|runtime| runtime.scan(tools, shared));
        dues.flatten().min()
    }

    /// Adds runtimes that are guarded since the last scan, and removes those that are guarded no more.
    fn refresh(&mut self) {
        if self.runtimes.is_empty() && !runtime::is_any() {
            return;
        }
        let all = runtime::all();
        self.runtimes.retain_mut(|scan| {
            let is_same = |guarded: &Arc<Guarded>| guarded.id == scan.guarded.id;
            let is_guarded = all.iter().any(is_same) && scan.guarded.is_attached();
            if !is_guarded {
                scan.close();
            }
            is_guarded
        });
        for guarded in all {
            let mut known = self.runtimes.iter();
            let is_new = known.all(|known| known.guarded.id != guarded.id);
            if let (true, Some(workers)) = (is_new, guarded.workers()) {
                self.runtimes.push(RuntimeScan::new(guarded, workers));
            }
        }
    }
}

impl RuntimeScan {
    fn new(guarded: Arc<Guarded>, workers: Arc<Workers>) -> Self {
        let states = (0..workers.count()).map(|_| WorkerState::default());
        Self {
            states: states.collect(),
            guarded,
            workers,
        }
    }

    fn scan(&mut self, tools: &mut ScanTools<'_>, shared: &mut SharedState) -> Option<u64> {
        let workers = 0..self.workers.count();
        let dues = workers.map(|worker| self.scan_worker(worker, tools, shared));
        dues.flatten().min()
    }

    /// Scans one worker. Returns the nanoseconds until the next scan.
    fn scan_worker(
        &mut self,
        worker: usize,
        tools: &mut ScanTools<'_>,
        shared: &mut SharedState,
    ) -> Option<u64> {
        let reading = self.workers.read(worker);
        let slot = self.slot_of(worker, tools.clock);
        if reading.is_parked() {
            self.end_stuck(worker, slot);
            self.states[worker] = WorkerState::default();
            return None;
        }
        let observation = self.observe(worker, slot);
        let continuity = if Some(reading) != self.states[worker].reading {
            self.states[worker].breakpoints = Breakpoints::default();
            Continuity::AnotherPoll
        } else if slot.is_some_and(|slot| is_excused(slot, tools.clock)) {
            Continuity::AnotherPoll
        } else {
            self.continuity(worker, slot, observation, tools, shared)
        };
        self.states[worker].observation = observation;
        match continuity {
            Continuity::SamePoll => {}
            Continuity::Unproved => {
                let interval = Interval::begin(slot, tools, &mut shared.ids);
                self.states[worker].one_poll = interval;
            }
            Continuity::AnotherPoll => {
                self.end_stuck(worker, slot);
                let interval = Interval::begin(slot, tools, &mut shared.ids);
                let state = &mut self.states[worker];
                *state = WorkerState {
                    reading: Some(reading),
                    observation,
                    busy: interval,
                    one_poll: interval,
                    first_state: slot.map_or(0, Slot::state),
                    breakpoints: std::mem::take(&mut state.breakpoints),
                    ..WorkerState::default()
                };
            }
        }
        let due = self.diagnose_if_due(worker, slot, tools);
        // A stuck worker needs no new proof: the old one holds over any time between two scans.
        let scans = match self.states[worker].stuck {
            Some(_) => 1,
            None => SCANS_PER_BUDGET,
        };
        Some(due.min(self.guarded.budget_nanos / scans))
    }

    /// Returns the slot of the thread that runs a worker, if it is known.
    ///
    /// A thread in a contained poll has handed its worker over.
    fn slot_of(&self, worker: usize, clock: &Clock) -> Option<&'static Slot> {
        let key = self.workers.thread_key(worker);
        let slot = key.and_then(ThreadKey::slot)?;
        let polls = slot.read().filter(|poll| is_of_clock(poll, clock));
        let mut polls = polls.iter();
        let has_handed_over = polls.any(|poll| poll.kind == SectionKind::Contained);
        if has_handed_over {
            self.workers.unbind(worker);
        }
        (!has_handed_over).then_some(slot)
    }

    fn observe(&self, worker: usize, slot: Option<&Slot>) -> Observation {
        let Some((slot, key)) = slot.zip(self.workers.thread_key(worker)) else {
            return Observation::default();
        };
        Observation::of(slot, key.number(), self.workers.probes_run(worker))
    }

    /// Returns what is proved since the last scan of a worker with unchanged counters.
    fn continuity(
        &mut self,
        worker: usize,
        slot: Option<&Slot>,
        observation: Observation,
        tools: &mut ScanTools<'_>,
        shared: &mut SharedState,
    ) -> Continuity {
        let before = &self.states[worker].observation;
        let observed = observation.continuity(before);
        if observation.has_fallen_asleep_since(before) {
            // The next scan proves the sleep. A signal for the stack would cut it short.
            return observed;
        }
        let stacks = self.guarded.watchdog.sink.policy().stacks;
        let (Continuity::Unproved, Some(slot), Some(sampler), false) = (
            observed,
            slot,
            tools.sampler.as_deref_mut(),
            stacks == Stacks::Never,
        ) else {
            return observed;
        };
        let state = &mut self.states[worker];
        let poll = state.one_poll.as_poll(self.guarded.budget_nanos);
        let mut target = SampleTarget {
            slot,
            poll: &poll,
            sampler,
            stacks,
        };
        match state.breakpoints.continuity(&mut shared.sites, &mut target) {
            Continuity::Unproved => state.compare_tasks(&mut target, self.guarded.budget_nanos),
            proved => proved,
        }
    }

    /// Diagnoses a worker that is over its budget. Returns the nanoseconds until the next scan.
    fn diagnose_if_due(
        &mut self,
        worker: usize,
        slot: Option<&'static Slot>,
        tools: &mut ScanTools<'_>,
    ) -> u64 {
        let budget = self.guarded.budget_nanos;
        let now = tools.clock.raw();
        let elapsed = |since| tools.clock.nanos_between(since, now);
        let state = &mut self.states[worker];
        let (busy, one_poll) = (elapsed(state.busy.since), elapsed(state.one_poll.since));
        state.elapsed = busy;
        let slot_state = slot.map_or(0, Slot::state);
        if std::mem::replace(&mut state.state, slot_state) != slot_state {
            state.watched_at = busy;
        }
        let (kind, interval, length) = if one_poll > budget && slot.is_some() {
            state.proved_at = busy;
            (StuckKind::OnePoll, state.one_poll, one_poll)
        } else if state.is_long_busy(budget) {
            (StuckKind::Busy, state.busy, busy)
        } else {
            self.end_expired_proof(worker, slot);
            return budget.saturating_add(1).saturating_sub(one_poll);
        };
        let state = &mut self.states[worker];
        if let Some(stuck) = state.stuck.as_mut().filter(|stuck| stuck.kind == kind) {
            // The report of the end has this length.
            stuck.elapsed_nanos = length;
        }
        let was_other_kind = state.stuck.as_ref().is_some_and(|stuck| stuck.kind != kind);
        let is_newly_proved = kind == StuckKind::OnePoll && was_other_kind;
        if busy >= state.next_diagnosis_at || is_newly_proved {
            let status = BudgetStatus {
                poll: interval.as_poll(budget_of(kind, budget)),
                elapsed: length,
                charged: length,
            };
            if let Some(slot) = slot {
                interval.mark_seen(slot, &status.poll);
            }
            self.diagnose_and_report(worker, slot, kind, &status, tools);
        }
        let state = &self.states[worker];
        state.next_diagnosis_at.saturating_sub(state.elapsed)
    }

    /// Ends a proof that no scan has renewed within two budgets: the worker may have gone on since.
    fn end_expired_proof(&mut self, worker: usize, slot: Option<&Slot>) {
        let state = &self.states[worker];
        let is_proved = |stuck: &StuckState| stuck.kind == StuckKind::OnePoll;
        let since = state.elapsed - state.proved_at;
        if state.stuck.as_ref().is_some_and(is_proved) && since > 2 * self.guarded.budget_nanos {
            self.end_stuck(worker, slot);
        }
    }

    fn diagnose_and_report(
        &mut self,
        worker: usize,
        slot: Option<&'static Slot>,
        kind: StuckKind,
        status: &BudgetStatus,
        tools: &mut ScanTools<'_>,
    ) {
        // Before the stack is taken, which takes a while: a poll may end in that time.
        let is_reported = match slot {
            Some(slot) => has_reported_stall(slot, 0, tools.clock),
            None => has_unknown_thread_reported_stall(&self.workers, status.elapsed, tools.clock),
        };
        let (diagnosis, slot) = match slot.map(|slot| self.diagnose(slot, kind, status, tools)) {
            Some(WorkerDiagnosis::AnotherThread) => {
                self.workers.unbind(worker);
                (WorkerDiagnosis::Excused, None)
            }
            None => (self.diagnose_unknown_thread(), None),
            Some(diagnosis) => (diagnosis, slot),
        };
        let elapsed = self.states[worker].elapsed;
        match diagnosis {
            WorkerDiagnosis::Stuck(diagnosis) if self.is_unchanged(worker, slot, kind) => {
                let stuck = StuckState {
                    kind,
                    diagnosis,
                    elapsed_nanos: status.elapsed,
                };
                self.record_stuck(worker, slot, stuck, is_reported);
            }
            WorkerDiagnosis::Stuck(_) | WorkerDiagnosis::Excused => {
                let retry = self.guarded.budget_nanos / RETRIES_PER_BUDGET;
                self.states[worker].next_diagnosis_at = elapsed + retry;
            }
            WorkerDiagnosis::NoWorker | WorkerDiagnosis::AnotherThread => {
                self.end_stuck(worker, slot);
                self.states[worker].next_diagnosis_at = elapsed.saturating_mul(2);
            }
        }
    }

    /// Returns whether the worker is still in the same poll after the diagnosis. Otherwise the stack may be that of
    /// another poll.
    fn is_unchanged(&mut self, worker: usize, slot: Option<&Slot>, kind: StuckKind) -> bool {
        if Some(self.workers.read(worker)) != self.states[worker].reading {
            return false;
        }
        if kind == StuckKind::Busy {
            return true;
        }
        let before = self.states[worker].observation;
        let mut now = self.observe(worker, slot);
        for _ in 0..SLEEP_CHECKS {
            if !before.is_asleep() || now.is_asleep() {
                break;
            }
            std::thread::sleep(SLEEP_CHECK_PAUSE);
            now = self.observe(worker, slot);
        }
        let state = &mut self.states[worker];
        state.observation = now;
        now.continuity_after_a_sample(&before) == Continuity::SamePoll
            || state.breakpoints.is_still_proved()
    }

    fn diagnose(
        &self,
        slot: &Slot,
        kind: StuckKind,
        status: &BudgetStatus,
        tools: &mut ScanTools<'_>,
    ) -> WorkerDiagnosis {
        let policy = self.guarded.watchdog.sink.policy();
        let sampler = tools.sampler.as_deref_mut();
        let Diagnosed::Charged(diagnosis) = diagnose(slot, status, tools.clock, sampler, policy)
        else {
            return WorkerDiagnosis::Excused;
        };
        let sampler = tools.sampler.as_deref_mut();
        let is_loading = sampler.is_some_and(StackSampler::is_loading);
        if is_loading && !is_long(status, self.guarded.budget_nanos) {
            // In the first moments of the process there is no stack, and only the stack shows what the worker does.
            return WorkerDiagnosis::Excused;
        }
        let shows = |what: fn(&StackSampler, &Stack) -> bool| {
            let sampled = tools.sampler.as_deref().zip(diagnosis.stack.as_ref());
            sampled.is_some_and(|(sampler, stack)| what(sampler, stack))
        };
        // A current-thread runtime has no worker while no thread is in `block_on`, and its counters do not change. A
        // thread that was in `block_in_place` has handed its worker to another one.
        match self.workers.is_current_thread() {
            true if !shows(StackSampler::is_in_block_on) => WorkerDiagnosis::NoWorker,
            false if shows(StackSampler::has_handed_over) => WorkerDiagnosis::AnotherThread,
            // The worker waits in a lock of the runtime or in a hook, which is no poll.
            false if kind == StuckKind::OnePoll && shows(StackSampler::is_between_polls) => {
                WorkerDiagnosis::Excused
            }
            _ => WorkerDiagnosis::Stuck(diagnosis),
        }
    }

    /// Diagnoses a worker whose thread is unknown. A current-thread runtime may have no thread at all.
    fn diagnose_unknown_thread(&self) -> WorkerDiagnosis {
        match self.workers.is_current_thread() {
            true => WorkerDiagnosis::Excused,
            false => WorkerDiagnosis::Stuck(Diagnosis::default()),
        }
    }

    /// Ends all stuck states, because the runtime is guarded no more.
    fn close(&mut self) {
        for worker in 0..self.states.len() {
            let key = self.workers.thread_key(worker);
            self.end_stuck(worker, key.and_then(ThreadKey::slot));
        }
    }
}

/// Returns the budget of a kind in nanoseconds.
pub(super) fn budget_of(kind: StuckKind, budget_nanos: u64) -> u64 {
    match kind {
        StuckKind::OnePoll => budget_nanos,
        StuckKind::Busy => budget_nanos.saturating_mul(BUSY_BUDGETS),
    }
}

/// Returns whether an interval has lasted for ten budgets. Then the report does not wait for a stack.
fn is_long(status: &BudgetStatus, budget_nanos: u64) -> bool {
    let suspended = SUSPENSIONS.since(status.poll.start);
    let limit = budget_nanos.saturating_mul(BUSY_BUDGETS);
    status.elapsed.saturating_sub(suspended) > limit
}

/// Returns whether `allow_blocking` excuses the thread, and so its worker.
fn is_excused(slot: &Slot, clock: &Clock) -> bool {
    let (polls, now) = (slot.read().seqs(), clock.raw());
    let diagnostics = slot.diagnostics();
    let elapsed = |since| clock.nanos_between(since, now);
    diagnostics.allowances.is_any_active(&polls, elapsed)
}

//! Counts and reports stuck workers.

use std::sync::atomic::Ordering::Relaxed;

use super::stack_sampler::STACK_RETRY_NANOS;
use super::worker_scan::{RuntimeScan, budget_of};
use super::worker_state::StuckState;
use crate::clock::Clock;
use crate::report::StuckKind;
use crate::runtime::{Guarded, Stuck, Workers};
use crate::slot::{self, Diagnosis, ReportState, Slot};
use crate::watch::{StuckWorkers, is_of_clock};

/// The longest time between two diagnoses of a stuck worker. A current-thread runtime may end without a change of its
/// counters.
const MAX_DIAGNOSIS_INTERVAL_NANOS: u64 = 1_000_000_000;

/// Requests for the stack of a thread that does not answer, before its worker is reported without one.
const MAX_STACK_TRIES: u32 = 8;

impl RuntimeScan {
    /// Counts a worker that is stuck or busy. Reports it, unless a watched poll `is_reported` instead.
    pub(super) fn record_stuck(
        &mut self,
        worker: usize,
        slot: Option<&Slot>,
        stuck: StuckState,
        is_reported: bool,
    ) {
        let Self {
            guarded, states, ..
        } = self;
        let state = &mut states[worker];
        if stuck.diagnosis.is_stack_late && state.late_stacks < MAX_STACK_TRIES {
            state.late_stacks += 1;
            state.next_diagnosis_at = state.elapsed + STACK_RETRY_NANOS;
            return;
        }
        let before = state.stuck.take();
        let since = match stuck.kind {
            StuckKind::OnePoll => state.one_poll.since,
            StuckKind::Busy => state.busy.since,
        };
        let is_new = before.as_ref().map(|before| before.kind) != Some(stuck.kind);
        if is_new {
            if let Some(before) = &before {
                uncount(guarded, worker, before.kind);
            }
            count(guarded, worker, stuck.kind, since);
        }
        let earlier_stack = before.and_then(|before| before.diagnosis.stack);
        let stuck = StuckState {
            diagnosis: Diagnosis {
                stack: stuck.diagnosis.stack.or(earlier_stack),
                ..stuck.diagnosis
            },
            ..stuck
        };
        let facts = facts(worker, slot, &stuck, guarded.budget_nanos);
        let diagnosis = stuck.diagnosis.clone();
        state.stuck = Some(stuck);
        state.next_diagnosis_at =
            state.elapsed + facts.elapsed_nanos.min(MAX_DIAGNOSIS_INTERVAL_NANOS);
        state.late_stacks = 0;
        if is_reported && slot.is_none() {
            // The reported poll may run on another thread, and may end soon.
            state.next_diagnosis_at = state.elapsed + guarded.budget_nanos;
            return;
        }
        if is_reported || state.elapsed < state.next_report_at && !is_new {
            return;
        }
        let sink = &guarded.sink;
        sink.on_stuck(guarded, facts, diagnosis, &mut state.report_state);
        state.next_report_at = state.elapsed.saturating_mul(2);
        if state.report_state == ReportState::Suppressed {
            // The rate limit renews each second, so the sentinel asks again soon.
            state.next_diagnosis_at = state.elapsed + guarded.budget_nanos;
            state.next_report_at = state.next_diagnosis_at;
        }
    }

    /// Ends the stuck state of a worker that has gone on, if it had one.
    pub(super) fn end_stuck(&mut self, worker: usize, slot: Option<&Slot>) {
        let Self {
            guarded, states, ..
        } = self;
        let state = &mut states[worker];
        let report_state = std::mem::take(&mut state.report_state);
        if let Some(stuck) = state.stuck.take() {
            uncount(guarded, worker, stuck.kind);
            let facts = facts(worker, slot, &stuck, guarded.budget_nanos);
            let sink = &guarded.sink;
            sink.on_continued(guarded, facts, stuck.diagnosis, report_state);
        }
    }
}

fn count(guarded: &Guarded, worker: usize, kind: StuckKind, since: u64) {
    let counters = &guarded.counters;
    match kind {
        StuckKind::OnePoll => {
            counters.stuck.fetch_add(1, Relaxed);
            counters.stalls.fetch_add(1, Relaxed);
        }
        StuckKind::Busy => drop(counters.busy.fetch_add(1, Relaxed)),
    }
    stuck_workers(guarded, kind).insert(guarded.id, worker, since);
}

fn uncount(guarded: &Guarded, worker: usize, kind: StuckKind) {
    let counters = &guarded.counters;
    match kind {
        StuckKind::OnePoll => counters.stuck.fetch_sub(1, Relaxed),
        StuckKind::Busy => counters.busy.fetch_sub(1, Relaxed),
    };
    stuck_workers(guarded, kind).remove(guarded.id, worker);
}

fn stuck_workers(guarded: &Guarded, kind: StuckKind) -> &StuckWorkers {
    match kind {
        StuckKind::OnePoll => &guarded.watchdog.stuck_workers,
        StuckKind::Busy => &guarded.watchdog.busy_workers,
    }
}

fn facts(worker: usize, slot: Option<&Slot>, stuck: &StuckState, budget_nanos: u64) -> Stuck {
    let watches = |slot: &Slot| slot.read().iter().map(|poll| poll.watch).collect();
    Stuck {
        kind: stuck.kind,
        worker,
        thread: slot.and_then(|slot| slot.diagnostics().thread()),
        watches: slot.map(watches).unwrap_or_default(),
        elapsed_nanos: stuck.elapsed_nanos,
        budget_nanos: budget_of(stuck.kind, budget_nanos),
    }
}

/// Returns whether any thread that runs no known worker has a reported stall.
///
/// A poll that holds a worker for `elapsed_nanos` is no younger than half of that. Younger ones have nothing to do with
/// the worker.
pub(super) fn has_unknown_thread_reported_stall(
    workers: &Workers,
    elapsed_nanos: u64,
    clock: &Clock,
) -> bool {
    let all = slot::all().into_iter();
    let mut others = all.filter(|slot| !workers.has(slot.index()));
    others.any(|slot| has_reported_stall(slot, elapsed_nanos / 2, clock))
}

/// Returns whether a watched poll of a thread, of at least that age, is stalled and was reported. Then the worker is not
/// reported too. A poll that the rate limit suppressed does not count.
pub(super) fn has_reported_stall(slot: &Slot, min_age_nanos: u64, clock: &Clock) -> bool {
    let now = clock.raw();
    let stack = slot.read().filter(|poll| is_of_clock(poll, clock));
    let mut polls = stack.iter().filter(|poll| {
        let age = clock.nanos_between(poll.start, now);
        age >= min_age_nanos && !poll.kind.is_uncounted()
    });
    polls.any(|poll| {
        let diagnostics = slot.lock_running(poll);
        diagnostics.is_some_and(|mut diagnostics| diagnostics.record(poll).was_reported())
    })
}

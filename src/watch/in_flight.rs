//! Reads the polls of the process that are in flight, and finds the stalled ones.

use arrayvec::ArrayVec;

use super::watchdog_of;
use crate::clock::Clock;
use crate::slot::{
    self, BudgetStatus, InFlightPoll, MAX_DEPTH, PollRecord, PollStack, Slot, ThreadDiagnostics,
};

/// One poll in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PollStatus {
    /// The id of the watch.
    pub(crate) watch: u64,
    pub(crate) elapsed_nanos: u64,
    /// The charged time of a stalled poll; `None` for a poll within its budget. The charged time leaves out slow
    /// polls inside, and all that excuses the poll.
    pub(crate) stalled_nanos: Option<u64>,
}

/// Returns the polls in flight whose watchdogs share a clock.
///
/// This function reads the slots and waits for no other thread, so its answer holds while the sentinel is held up.
pub(crate) fn poll_statuses(clock: &Clock) -> Vec<PollStatus> {
    let now = clock.raw();
    let mut all = Vec::new();
    for slot in slot::all() {
        let polls = polls_of_slot(slot, clock, now).into_iter();
        let of_watches = polls.filter(|(budget_status, _)| !budget_status.poll.kind.is_uncounted());
        all.extend(of_watches.map(|(budget_status, stalled_nanos)| PollStatus {
            watch: budget_status.poll.watch,
            elapsed_nanos: budget_status.elapsed,
            stalled_nanos,
        }));
    }
    all
}

/// Returns whether the start of a poll can be compared with readings of a clock.
pub(crate) fn is_of_clock(poll: &InFlightPoll, clock: &Clock) -> bool {
    watchdog_of(poll.watch).is_some_and(|watchdog| watchdog.clock.is_comparable_with(clock))
}

/// Returns the polls in flight on one thread, innermost first, each with its charged nanoseconds if it is stalled.
///
/// Excused time is not charged: time under `allow_blocking`, a poll whose worker was handed over, and the time that
/// the sentinel's last scan attributed to no code.
pub(crate) fn polls_of_slot(
    slot: &Slot,
    clock: &Clock,
    now: u64,
) -> ArrayVec<(BudgetStatus, Option<u64>), MAX_DEPTH> {
    let nest = slot.read().filter(|poll| is_of_clock(poll, clock));
    let by_wall = nest.budget_statuses_at(clock, now, None);
    if !by_wall.iter().any(BudgetStatus::is_over) {
        return by_wall
            .into_iter()
            .map(|budget_status| (budget_status, None))
            .collect();
    }
    let diagnostics = slot.diagnostics_unless_held();
    let diagnostics = diagnostics.as_deref();
    let budget_statuses = nest.budget_statuses_at(
        clock,
        now,
        diagnostics.map(|diagnostics| &diagnostics.allowances),
    );
    let stalled = |budget_status: BudgetStatus| {
        (
            budget_status,
            stalled_nanos(&nest, &budget_status, diagnostics),
        )
    };
    budget_statuses.into_iter().map(stalled).collect()
}

fn stalled_nanos(
    nest: &PollStack,
    budget_status: &BudgetStatus,
    diagnostics: Option<&ThreadDiagnostics>,
) -> Option<u64> {
    let record =
        diagnostics.and_then(|diagnostics| diagnostics.existing_record(&budget_status.poll));
    let is_handed_over =
        nest.is_contained(&budget_status.poll) || record.is_some_and(PollRecord::is_handed_over);
    let uncharged = record.map_or(0, |record| record.uncharged);
    let charged = budget_status.charged.saturating_sub(uncharged);
    (!is_handed_over && charged > budget_status.poll.budget).then_some(charged)
}

//! Scans all slots: reports the polls over their budget, and says when to scan again.

use std::time::Duration;

use super::diagnose::{Diagnosed, diagnose};
use super::escalation::escalate;
use super::stack_sampler::StackSampler;
use super::stalled_poll::StalledPoll;
use super::ticker;
use crate::clock::Clock;
use crate::liveness::silence_of_both;
use crate::slot::{self, BudgetStatus, BudgetStatuses, InFlightPoll, PollStack, Slot};
use crate::suspension;
use crate::watch::{is_of_clock, name_of, watchdog_of};

/// The age up to which the latest CPU sample of a busy thread serves. A sample costs more than the rest of a scan.
const MAX_SAMPLE_AGE_NANOS: u64 = 50_000_000;

/// Scans the slots under one clock. Tests step it by hand with a mocked clock.
pub(crate) struct Scanner {
    pub(super) clock: Clock,
    /// The state of each slot at the last scan.
    states: Vec<u64>,
    /// The slot with which the next scan begins.
    first: usize,
    /// `None` under a mocked clock: then the scan does not ask the operating system.
    pub(super) sampler: Option<StackSampler>,
}

/// The result of a scan.
#[derive(Debug, PartialEq)]
pub(crate) struct ScanResult {
    /// Whether nothing is in flight now, and nothing was since the last scan.
    pub(crate) is_idle: bool,
    /// When the next poll exceeds its budget, or the next diagnosis is due.
    pub(crate) due: Option<Duration>,
}

/// The result for one slot.
struct SlotResult {
    due: Option<Duration>,
    /// Whether the scan left a report to the next one.
    is_postponed: bool,
}

impl Scanner {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            sampler: clock.is_real().then(StackSampler::new),
            clock,
            states: Vec::new(),
            first: 0,
        }
    }

    pub(crate) fn scan(&mut self) -> ScanResult {
        let mut result = ScanResult {
            is_idle: true,
            due: None,
        };
        if let Some(sampler) = &mut self.sampler {
            sampler.begin_scan();
        }
        let mut slots = slot::all();
        self.states.resize(slots.len(), 0);
        let first = std::mem::take(&mut self.first);
        let first = first.min(slots.len());
        slots.rotate_left(first);
        let mut postponed_at = None;
        for slot in slots {
            let state = slot.state();
            let before = std::mem::replace(&mut self.states[slot.index()], state);
            result.is_idle &= state == before && !Slot::is_busy(state);
            if Slot::is_busy(state) {
                let of_slot = self.scan_slot(slot);
                result.due = [result.due, of_slot.due].into_iter().flatten().min();
                postponed_at = postponed_at.or(of_slot.is_postponed.then_some(slot.index()));
            }
        }
        self.first = postponed_at.unwrap_or_default();
        result
    }

    /// Reports the polls of one thread that are due.
    ///
    /// A suspension in the middle of a scan shows only at its end. So while neither the sentinel nor the ticker has
    /// given a sign of life for too long, the scan postpones its reports. The next scan comes at once, and begins with
    /// this slot.
    fn scan_slot(&mut self, slot: &Slot) -> SlotResult {
        let stack = self.read(slot);
        let Self { clock, sampler, .. } = self;
        let now = clock.raw();
        let (statuses, mut earliest) = budget_statuses(slot, &stack, clock, now);
        let mut is_postponed = false;
        for status in statuses.iter() {
            let (poll, charged) = (&status.poll, status.charged);
            // A poll is slow over its budget, not at it.
            let at = if charged > poll.budget && may_be_suspended(clock) {
                is_postponed = true;
                charged
            } else if charged > poll.budget {
                handle_stall(clock, sampler.as_mut(), slot, &stack, status)
            } else {
                poll.budget.saturating_add(1)
            };
            let wait = at.saturating_sub(charged);
            earliest = earliest.into_iter().chain([wait]).min();
        }
        SlotResult {
            due: earliest.map(Duration::from_nanos),
            is_postponed,
        }
    }

    /// Reads the polls in flight on a thread, and takes a CPU sample if one is due.
    fn read(&self, slot: &Slot) -> PollStack {
        let stack = slot.read().filter(|poll| is_of_clock(poll, &self.clock));
        if self.clock.is_real() && !stack.is_empty() {
            mark_seen(&self.clock, slot, stack.iter());
        }
        stack
    }
}

/// Takes a CPU sample of the thread of a poll that is past half of its budget and has no sample yet. Also takes one if the
/// latest sample is too old. So there is always a sample that is hardly older than a slow poll.
pub(super) fn mark_seen<'p>(
    clock: &Clock,
    slot: &Slot,
    polls: impl Iterator<Item = &'p InFlightPoll> + Clone,
) {
    let now = clock.raw();
    let elapsed = |since| clock.nanos_between(since, now);
    let mut diagnostics = slot.diagnostics();
    let is_old = diagnostics
        .sampled_at()
        .is_none_or(|at| elapsed(at) > MAX_SAMPLE_AGE_NANOS);
    let mut is_new_past_half =
        |poll: &InFlightPoll| elapsed(poll.start) >= poll.budget / 2 && !diagnostics.was_seen(poll);
    if (polls.clone().any(&mut is_new_past_half) || is_old)
        && let Some((before, now)) = diagnostics.sample(now, clock)
    {
        polls.for_each(|poll| diagnostics.mark_seen(poll, before, now));
    }
}

/// Returns whether a suspension may have begun that no thread of ours has noticed. A mocked clock has none.
fn may_be_suspended(clock: &Clock) -> bool {
    let max_silence = ticker::sleep_nanos() + suspension::MIN_NANOS;
    clock.is_real() && silence_of_both(clock, clock.raw()) > max_silence
}

/// Diagnoses one stall, and reports and escalates it as due. Returns the charged time of the next diagnosis.
fn handle_stall(
    clock: &Clock,
    mut sampler: Option<&mut StackSampler>,
    slot: &Slot,
    stack: &PollStack,
    status: &BudgetStatus,
) -> u64 {
    const NEVER: u64 = u64::MAX;
    if slot.is_reporting() {
        return NEVER;
    }
    let Some(watchdog) = watchdog_of(status.poll.watch) else {
        return NEVER;
    };
    let name = name_of(status.poll.watch);
    let Some(counters) = name.and_then(|name| watchdog.registry.get(&name)) else {
        return NEVER;
    };
    let stalled = StalledPoll {
        slot,
        stack,
        status,
        watchdog,
        counters,
    };
    let due = stalled.due();
    if status.charged < due {
        return due;
    }
    let policy = stalled.watchdog.sink.policy();
    match diagnose(slot, status, clock, sampler.as_deref_mut(), policy) {
        Diagnosed::Excused => stalled.excuse(),
        Diagnosed::Charged(mut diagnosis) => {
            diagnosis.is_handed_over = stalled.has_handed_over(sampler.as_deref(), &diagnosis);
            stalled.record_stack(&diagnosis);
            if status.charged >= stalled.next_report_at() {
                stalled.report(&diagnosis);
            }
            escalate(&stalled, diagnosis, sampler);
        }
    }
    stalled.due()
}

/// Returns the status of each poll of a thread, and the nanoseconds until an allowance of the thread ends.
///
/// The allowances take a lock, so this asks for them only if a poll would be over its budget without them.
fn budget_statuses(
    slot: &Slot,
    stack: &PollStack,
    clock: &Clock,
    now: u64,
) -> (BudgetStatuses, Option<u64>) {
    let statuses = stack.budget_statuses_at(clock, now, None);
    if !clock.is_real() || !statuses.iter().any(BudgetStatus::is_over) {
        return (statuses, None);
    }
    let diagnostics = slot.diagnostics();
    let elapsed = |since| clock.nanos_between(since, now);
    let due = diagnostics.allowances.due(&stack.seqs(), elapsed);
    let statuses = stack.budget_statuses_at(clock, now, Some(&diagnostics.allowances));
    (statuses, due.map(|due| due.saturating_add(1)))
}

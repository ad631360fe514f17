//! The data of the page.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use serde::Serialize;

use crate::clock::Clock;
use crate::counters;
use crate::dispatch::Recent;
use crate::report::{Culprit, Phase, RuntimeSnapshot, SlowPoll, StuckWorker};
use crate::runtime::{self, Guarded};
use crate::serialize::timestamp;
use crate::slot::{self, Slot};
use crate::watch::{Health, WatchStats, name_of, polls_of_slot};
use crate::watchdog::Watchdog;

/// The latest reports that the page shows: more than a screen has room for.
const MAX_RECENT_REPORTS: usize = 50;

/// Holds all data of the page at one time. `Serialize` writes `state.json`: durations in seconds, and times in seconds since
/// 1970.
///
/// Watches, reports and culprits belong to one watchdog. Runtimes, threads and lanes belong to the process.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct State {
    /// The time of this state.
    pub at: f64,
    /// The summary of the health.
    pub health: Health,
    /// The watches, in descending order of stalls, then of slow polls, then of busy time.
    pub watches: Vec<WatchStats>,
    /// The guarded runtimes.
    pub runtimes: Vec<RuntimeState>,
    /// The threads that made watched polls, with their polls in flight.
    pub threads: Vec<ThreadState>,
    /// The reported stalls that still last, the oldest first.
    pub stalls: Vec<SlowPoll>,
    /// The stuck or busy workers of guarded runtimes, as last reported.
    pub stuck_workers: Vec<StuckWorker>,
    /// The reports of ended polls, the latest first.
    pub recent: Vec<RecentState>,
    /// The lanes.
    pub lanes: Vec<LaneState>,
    /// The functions with the most time over budget, the worst first.
    pub culprits: Vec<Culprit>,
    /// The stacks of the culprits, from the outermost watch to the innermost function, with their seconds over budget.
    pub flames: Vec<(Vec<String>, f64)>,
}

/// Describes a guarded runtime.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct RuntimeState {
    /// The state of the runtime.
    #[serde(flatten)]
    pub snapshot: RuntimeSnapshot,
    /// The number of stuck workers.
    pub stuck: u64,
    /// The number of times that a worker was stuck.
    pub stalls: u64,
    /// The number of workers that have been busy for ten budgets, in one poll or in many.
    pub busy: u64,
}

/// Describes a thread that made watched polls.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct ThreadState {
    /// Its name.
    pub thread: String,
    /// The guarded runtime whose worker it is.
    pub runtime: Option<Arc<str>>,
    /// The index of the worker there.
    pub worker: Option<usize>,
    /// Whether the worker is parked.
    pub is_parked: bool,
    /// Its polls in flight, outermost first.
    pub polls: Vec<PollState>,
}

/// Describes a poll in flight.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct PollState {
    /// The name of its watch.
    pub watch: Arc<str>,
    /// The kind of the section.
    pub kind: String,
    /// The age of the poll.
    pub elapsed: f64,
    /// The budget of the poll.
    pub budget: f64,
    /// Whether it exceeds the budget, without the slow polls inside.
    pub is_stalled: bool,
}

/// Holds a report and its time.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct RecentState {
    /// The time of the report.
    pub at: f64,
    /// The report.
    #[serde(flatten)]
    pub slow: SlowPoll,
}

/// Describes a lane.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct LaneState {
    /// Its name.
    pub lane: Arc<str>,
    /// The number of queued closures.
    pub queued: u64,
    /// The number of running closures.
    pub in_flight: u64,
    /// The number of refused closures.
    pub rejected: u64,
    /// The number of closures that panicked.
    pub panics: u64,
    /// The number of closures that ran on the calling thread.
    pub inline: u64,
}

impl State {
    pub(super) fn of(watchdog: &Watchdog) -> Self {
        let clock = watchdog.clock();
        // One lock at a time, because the reporter's thread needs each of them.
        let polls = watchdog.history().recent().polls();
        let stuck_workers = watchdog.history().recent().stuck_workers();
        let (running, ended) = polls
            .into_iter()
            .partition::<Vec<_>, _>(|recent| recent.slow.phase == Phase::Running);
        let culprits = watchdog.culprits();
        Self {
            at: timestamp(SystemTime::now()),
            health: watchdog.health(),
            watches: watches(watchdog),
            runtimes: runtime::all().iter().filter_map(RuntimeState::of).collect(),
            threads: threads(clock),
            stalls: stalls(running, clock),
            stuck_workers,
            recent: ended
                .into_iter()
                .rev()
                .take(MAX_RECENT_REPORTS)
                .map(RecentState::of)
                .collect(),
            lanes: lanes(),
            flames: culprits.stacks.iter().map(flame).collect(),
            culprits: culprits.iter().cloned().collect(),
        }
    }
}

fn watches(watchdog: &Watchdog) -> Vec<WatchStats> {
    let mut watches: Vec<_> = watchdog.snapshot().iter().cloned().collect();
    watches.sort_by_key(|stats| {
        let WatchStats {
            stalls,
            slow_polls,
            busy,
            ..
        } = *stats;
        std::cmp::Reverse((stalls, slow_polls, busy))
    });
    watches
}

fn flame((stack, nanos): &(Arc<str>, u64)) -> (Vec<String>, f64) {
    let parts = stack.split(';').map(str::to_owned).collect();
    (parts, *nanos as f64 / 1e9)
}

impl RuntimeState {
    fn of(guarded: &Arc<Guarded>) -> Option<Self> {
        Some(Self {
            snapshot: runtime::snapshot(guarded)?,
            stuck: guarded.counters.stuck.load(Relaxed),
            stalls: guarded.counters.stalls.load(Relaxed),
            busy: guarded.counters.busy.load(Relaxed),
        })
    }
}

impl RecentState {
    fn of(recent: Recent) -> Self {
        Self {
            at: timestamp(recent.at),
            slow: recent.slow,
        }
    }
}

/// Returns the reported stalls that still last, with their present age.
fn stalls(running: Vec<Recent>, clock: &Clock) -> Vec<SlowPoll> {
    let slots = slot::all();
    let still = |slow: &SlowPoll| {
        let slot = slots.get(slow.slot?)?;
        let nest = slot.read();
        let poll = nest.iter().find(|poll| Some(poll.seq) == slow.seq)?;
        let elapsed = clock.nanos_between(poll.start, clock.raw());
        let elapsed = std::time::Duration::from_nanos(elapsed);
        let mut slow = slow.clone();
        slow.elapsed = elapsed;
        Some(slow)
    };
    let mut stalls: Vec<_> = running
        .iter()
        .filter_map(|recent| still(&recent.slow))
        .collect();
    stalls.sort_by_key(|slow| std::cmp::Reverse(slow.elapsed));
    stalls
}

fn threads(clock: &Clock) -> Vec<ThreadState> {
    let guarded: Vec<_> = runtime::all();
    // Reporter threads belong to the crate.
    let slots = slot::all().into_iter().filter(|slot| !slot.is_reporting());
    let states = slots.filter_map(|slot| thread(slot, clock, &guarded));
    let mut threads: Vec<_> = states.collect();
    // Busy threads first.
    threads.sort_by_key(|thread| {
        (
            thread.polls.is_empty(),
            thread.runtime.clone(),
            thread.worker,
        )
    });
    threads
}

/// Returns the thread of a slot. `None` if no thread has it.
fn thread(slot: &Slot, clock: &Clock, guarded: &[Arc<Guarded>]) -> Option<ThreadState> {
    let now = clock.raw();
    let place = guarded.iter().find_map(|guarded| {
        let workers = guarded.workers()?;
        let worker = workers.of_slot(slot.index())?;
        Some((Arc::clone(&guarded.name), worker, workers.read(worker)))
    });
    let thread = slot.diagnostics().thread()?.to_string();
    let polls = polls_of_slot(slot, clock, now).into_iter().rev();
    let polls = polls.map(|(budget_status, stalled)| PollState {
        watch: name_of(budget_status.poll.watch).unwrap_or_default(),
        kind: budget_status.poll.kind.to_string(),
        elapsed: budget_status.elapsed as f64 / 1e9,
        budget: budget_status.poll.budget as f64 / 1e9,
        is_stalled: stalled.is_some(),
    });
    Some(ThreadState {
        thread,
        is_parked: place
            .as_ref()
            .is_some_and(|(_, _, reading)| reading.is_parked()),
        worker: place.as_ref().map(|(_, worker, _)| *worker),
        runtime: place.map(|(runtime, ..)| runtime),
        polls: polls.collect(),
    })
}

fn lanes() -> Vec<LaneState> {
    let state = |lane: &counters::LaneCounters| LaneState {
        lane: Arc::clone(&lane.name),
        queued: lane.queued.load(Relaxed),
        in_flight: lane.in_flight.load(Relaxed),
        rejected: lane.rejected.load(Relaxed),
        panics: lane.panics.load(Relaxed),
        inline: lane.inline.load(Relaxed),
    };
    counters::all_lanes().into_iter().map(state).collect()
}

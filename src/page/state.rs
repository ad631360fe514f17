//! What the page shows, as data.

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

/// How many of the latest reports are shown.
const RECENT: usize = 50;

/// Everything that the page shows, at one moment. `Serialize` gives what `state.json` has; times are
/// seconds, moments are seconds since 1970.
///
/// Watches, reports and culprits are those of one watchdog; runtimes, threads and lanes those of the
/// process.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct State {
    /// When it was made.
    pub at: f64,
    /// In one word.
    pub health: Health,
    /// What hurts most first: by stalls, then by slow polls, then by busy time.
    pub watches: Vec<WatchStats>,
    /// The runtimes that are guarded.
    pub runtimes: Vec<RuntimeState>,
    /// The threads that polled something watched, and what each is doing now.
    pub threads: Vec<ThreadState>,
    /// The stalls that were reported and still last, the oldest first.
    pub stalls: Vec<SlowPoll>,
    /// The workers of guarded runtimes that are stuck or busy for very long, as they were reported last.
    pub stuck_workers: Vec<StuckWorker>,
    /// The latest reports of polls that have ended, the latest first.
    pub recent: Vec<RecentState>,
    /// The lanes.
    pub lanes: Vec<LaneState>,
    /// Which functions held the workers most, the worst first.
    pub culprits: Vec<Culprit>,
    /// The stacks of the culprits, from the outermost watch to the innermost function, and for how many
    /// seconds each was over budget.
    pub flames: Vec<(Vec<String>, f64)>,
}

/// A guarded runtime.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct RuntimeState {
    /// How it stands.
    #[serde(flatten)]
    pub snapshot: RuntimeSnapshot,
    /// How many of its workers are stuck.
    pub stuck: u64,
    /// How often a worker of it was found to be stuck.
    pub stalls: u64,
    /// How many of its workers are busy for very long, in one poll or in many.
    pub busy: u64,
}

/// A thread that polled something watched.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct ThreadState {
    /// Its name.
    pub thread: String,
    /// The guarded runtime that it is a worker of.
    pub runtime: Option<Arc<str>>,
    /// The number that it has there.
    pub worker: Option<usize>,
    /// Whether it waits for something to do there.
    pub is_parked: bool,
    /// Its polls in flight, outermost first.
    pub polls: Vec<PollState>,
}

/// A poll in flight.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct PollState {
    /// The name of its watch.
    pub watch: Arc<str>,
    /// What is timed.
    pub kind: String,
    /// For how long it has been running.
    pub elapsed: f64,
    /// How long it may.
    pub budget: f64,
    /// Whether it is over that, less the slow polls inside.
    pub is_stalled: bool,
}

/// A poll that was reported, and when.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct RecentState {
    /// When the report was made.
    pub at: f64,
    /// The report.
    #[serde(flatten)]
    pub slow: SlowPoll,
}

/// A lane.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct LaneState {
    /// Its name.
    pub lane: Arc<str>,
    /// How many closures wait.
    pub queued: u64,
    /// How many run.
    pub in_flight: u64,
    /// How many were not taken.
    pub rejected: u64,
    /// How many panicked.
    pub panics: u64,
    /// How many were run where they were offloaded.
    pub inline: u64,
}

impl State {
    pub(super) fn of(watchdog: &Watchdog) -> Self {
        let clock = watchdog.clock();
        // One at a time: what it holds is wanted by the thread that reports.
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
                .take(RECENT)
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

/// Those that have not ended since they were reported, as old as they are now.
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
    // Those of reporters are the crate's own.
    let slots = slot::all().into_iter().filter(|slot| !slot.is_reporting());
    let states = slots.filter_map(|slot| thread(slot, clock, &guarded));
    let mut threads: Vec<_> = states.collect();
    // Those that do something first.
    threads.sort_by_key(|thread| {
        (
            thread.polls.is_empty(),
            thread.runtime.clone(),
            thread.worker,
        )
    });
    threads
}

/// `None` if no thread has the slot.
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

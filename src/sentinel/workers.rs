//! Looks at the workers of guarded runtimes: which one has made no progress for too long, and why.
//!
//! A worker's counters, read twice, say that it neither parked nor polled much meanwhile (see
//! [`Reading`]). That stretch is then examined as a poll is, by the accounts and the stack of its thread.
//! It begins where it was first seen, so it is never said to be longer than it was.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::examine::{Examined, examine};
use super::scan::note;
use super::stacks::Taker;
use crate::clock::Clock;
use crate::runtime::{self, Guarded, Reading, Stuck, Workers};
use crate::slot::{self, Finding, InFlight, Seat, Slot, Standing, Told};
use crate::stack::Stack;
use crate::suspension::SUSPENSIONS;
use crate::watch::home_of;

/// Of a worker whose thread is not known it cannot be said whether it was run, and one between two polls
/// may wait for somebody who is not run. It must have been stuck for so many budgets.
const UNKNOWN: u64 = 10;

/// What is nobody's fault is looked at again so often within a budget: most often a thread had to wait for a
/// moment until it was run, and is over its budget as soon as that is made up for.
const EXCUSES: u64 = 20;

/// How many nanoseconds lie at most between two looks at a worker that is stuck. A runtime of the current
/// thread may have ended meanwhile without moving a counter.
const LONGEST_WAIT: u64 = 1_000_000_000;

/// How often a thread is asked for its stack that does not answer, before its worker is told without;
/// and how many nanoseconds lie between.
const STACK_TRIES: u32 = 8;
const STACK_AGAIN: u64 = 5_000_000;

/// What was seen of all guarded runtimes.
#[derive(Default)]
pub(super) struct Rounds {
    rounds: Vec<Round>,
    stretches: Stretches,
}

/// Numbers the stretches, so that the notes of one are not taken for those of another.
struct Stretches(u64);

impl Default for Stretches {
    fn default() -> Self {
        // Below are the numbers that a ground has.
        Self(2)
    }
}

impl Stretches {
    fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

/// One runtime.
struct Round {
    guarded: Arc<Guarded>,
    workers: Arc<Workers>,
    seen: Vec<Seen>,
}

/// One worker, since its counters last moved. Times are raw readings of the clock, or nanoseconds.
#[derive(Default)]
struct Seen {
    reading: Option<Reading>,
    number: u64,
    since: u64,
    elapsed: u64,
    again_at: u64,
    tell_at: u64,
    late_stacks: u32,
    /// Whether it counts as stuck, and what is known of that.
    found: Option<Finding>,
    told: Told,
}

/// What a look at a worker without progress comes to.
enum View {
    Stuck(Finding),
    /// It is nobody's fault, so far.
    Innocent,
    /// There is none: nobody is in `block_on`.
    NoWorker,
    /// It is not the thread that it was taken for.
    AnotherThread,
}

/// What the sentinel looks with.
pub(super) struct Means<'m> {
    pub(super) clock: &'m Clock,
    pub(super) taker: Option<&'m mut Taker>,
}

impl Rounds {
    /// Looks at every worker, and says in how many nanoseconds to look again at the latest.
    pub(super) fn look(&mut self, means: &mut Means<'_>) -> Option<u64> {
        self.call_the_roll();
        let Self { rounds, stretches } = self;
        let dues = rounds.iter_mut().map(|round| round.look(means, stretches));
        dues.flatten().min()
    }

    /// Which runtimes are guarded now.
    fn call_the_roll(&mut self) {
        if self.rounds.is_empty() && !runtime::is_any() {
            return;
        }
        let all = runtime::all();
        self.rounds.retain_mut(|round| {
            let is_same = |guarded: &Arc<Guarded>| guarded.id == round.guarded.id;
            let goes_on = all.iter().any(is_same) && round.guarded.is_armed();
            if !goes_on {
                round.close();
            }
            goes_on
        });
        for guarded in all {
            let is_new = self
                .rounds
                .iter()
                .all(|known| known.guarded.id != guarded.id);
            if let (true, Some(workers)) = (is_new, guarded.workers()) {
                self.rounds.push(Round::new(guarded, workers));
            }
        }
    }
}

impl Round {
    fn new(guarded: Arc<Guarded>, workers: Arc<Workers>) -> Self {
        Self {
            seen: (0..workers.count()).map(|_| Seen::default()).collect(),
            guarded,
            workers,
        }
    }

    fn look(&mut self, means: &mut Means<'_>, stretches: &mut Stretches) -> Option<u64> {
        let workers = 0..self.workers.count();
        let dues = workers.map(|worker| self.look_at(worker, means, stretches));
        dues.flatten().min()
    }

    fn look_at(
        &mut self,
        worker: usize,
        means: &mut Means<'_>,
        stretches: &mut Stretches,
    ) -> Option<u64> {
        let reading = self.workers.read(worker);
        let slot = self.workers.seat(worker).and_then(Seat::slot);
        if reading.is_parked() || Some(reading) != self.seen[worker].reading {
            self.went_on(worker, slot);
            self.seen[worker] = Seen {
                reading: Some(reading),
                number: stretches.next(),
                again_at: self.guarded.budget.saturating_add(1),
                ..Seen::default()
            };
            if reading.is_parked() {
                return None;
            }
            let stretch = self.stretch(worker, means.clock.raw());
            slot.inspect(|slot| note(means.clock, slot, [&stretch].into_iter()));
            // After its account, so that this is one from before.
            self.seen[worker].since = means.clock.raw();
        }
        self.still(worker, slot, means);
        let seen = &self.seen[worker];
        Some(seen.again_at.saturating_sub(seen.elapsed))
    }

    /// The stretch without progress, as if it were a poll.
    fn stretch(&self, worker: usize, since: u64) -> InFlight {
        InFlight::of_worker(self.seen[worker].number, since, self.guarded.budget)
    }

    /// Sees to a worker whose counters have not moved.
    fn still(&mut self, worker: usize, slot: Option<&'static Slot>, means: &mut Means<'_>) {
        let since = self.seen[worker].since;
        let stretch = self.stretch(worker, since);
        slot.inspect(|slot| note(means.clock, slot, [&stretch].into_iter()));
        let elapsed = means.clock.nanos_between(since, means.clock.raw());
        self.seen[worker].elapsed = elapsed;
        if elapsed < self.seen[worker].again_at {
            return;
        }
        let standing = Standing {
            poll: stretch,
            elapsed,
            own: elapsed,
        };
        // Before its stack is taken, which takes a while: the poll may end meanwhile.
        let has_a_stall = slot.is_some_and(|slot| has_a_stall(slot, 0, means.clock));
        let (view, slot) = match slot.map(|slot| self.examine(slot, &standing, means)) {
            Some(View::AnotherThread) => {
                self.workers.vacate(worker);
                (self.guess(&standing), None)
            }
            None => (self.guess(&standing), None),
            Some(view) => (view, slot),
        };
        let has_moved = Some(self.workers.read(worker)) != self.seen[worker].reading;
        match view {
            View::Stuck(found) if !has_moved => {
                let is_told = match slot {
                    Some(_) => has_a_stall,
                    None => has_an_unknown_thread_a_stall(&self.workers, elapsed, means.clock),
                };
                self.found(worker, slot, found, is_told);
            }
            View::Stuck(_) | View::Innocent => {
                self.seen[worker].again_at = elapsed + self.guarded.budget / EXCUSES;
            }
            View::NoWorker | View::AnotherThread => {
                self.went_on(worker, slot);
                self.seen[worker].again_at = elapsed.saturating_mul(2);
            }
        }
    }

    fn examine(&self, slot: &Slot, standing: &Standing, means: &mut Means<'_>) -> View {
        let orders = self.guarded.home.slow.orders();
        let taker = means.taker.as_deref_mut();
        let Examined::Guilty(finding) = examine(slot, standing, means.clock, taker, orders) else {
            return View::Innocent;
        };
        let is_loading = means.taker.as_deref_mut().is_some_and(Taker::is_loading);
        if is_loading && !self.is_long(standing) {
            // In the first moments of the process: what it is can be said with its stack only.
            return View::Innocent;
        }
        let is_in = |part: fn(&Taker, &Stack) -> bool| {
            let seen = means.taker.as_deref().zip(finding.stack.as_ref());
            seen.is_some_and(|(taker, stack)| part(taker, stack))
        };
        // A runtime of the current thread has no worker while nobody is in `block_on`, and its counters
        // stand still. And a thread that was in `block_in_place` has handed its worker to another one.
        match self.workers.is_current_thread() {
            true if !is_in(Taker::is_in_block_on) => View::NoWorker,
            false if is_in(Taker::has_handed_over) => View::AnotherThread,
            // It waits for a lock of the runtime's, which somebody has who is not run; or in a hook.
            false if is_in(Taker::is_between_polls) && !self.is_long(standing) => View::Innocent,
            _ => View::Stuck(finding),
        }
    }

    /// Whether it has made no progress for so long that it is stuck, whoever is to blame.
    fn is_long(&self, standing: &Standing) -> bool {
        let least = self.guarded.budget.saturating_mul(UNKNOWN);
        let suspended = SUSPENSIONS.since(standing.poll.start);
        standing.elapsed.saturating_sub(suspended) > least
    }

    /// Of a thread that is not known.
    fn guess(&self, standing: &Standing) -> View {
        match self.is_long(standing) && !self.workers.is_current_thread() {
            true => View::Stuck(Finding::default()),
            false => View::Innocent,
        }
    }

    /// Counts a stuck worker, and tells of it unless a watched poll `is_told` instead.
    fn found(&mut self, worker: usize, slot: Option<&Slot>, found: Finding, is_told: bool) {
        let Self { guarded, seen, .. } = self;
        let seen = &mut seen[worker];
        if found.is_stack_late && seen.late_stacks < STACK_TRIES {
            seen.late_stacks += 1;
            seen.again_at = seen.elapsed + STACK_AGAIN;
            return;
        }
        if seen.found.is_none() {
            guarded.counts.stuck.fetch_add(1, Relaxed);
            guarded.counts.stalls.fetch_add(1, Relaxed);
            guarded
                .home
                .stuck_workers
                .note(guarded.id, worker, seen.since);
        }
        let had = seen.found.take().and_then(|had| had.stack);
        let found = Finding {
            stack: found.stack.or(had),
            ..found
        };
        seen.found = Some(found.clone());
        if let Some(slot) = slot {
            let stretch = InFlight::of_worker(seen.number, seen.since, guarded.budget);
            // A sleep is made again with what is left: how long it was is remembered.
            slot.margin().note(&stretch).finding = Some(found.clone());
        }
        seen.again_at = seen.elapsed + seen.elapsed.min(LONGEST_WAIT);
        seen.late_stacks = 0;
        if is_told && slot.is_none() {
            // The poll that is told may be another thread's, and may soon be over.
            seen.again_at = seen.elapsed + guarded.budget;
            return;
        }
        if seen.elapsed < seen.tell_at {
            return;
        }
        seen.tell_at = seen.elapsed.saturating_mul(2);
        if !is_told {
            let stuck = stuck(worker, slot, seen.elapsed);
            let listener = &guarded.listener;
            listener.on_stuck(guarded, stuck, found, &mut seen.told);
        }
    }

    /// The worker is stuck no more, if it was.
    fn went_on(&mut self, worker: usize, slot: Option<&Slot>) {
        let Self { guarded, seen, .. } = self;
        let seen = &mut seen[worker];
        if let Some(found) = seen.found.take() {
            guarded.counts.stuck.fetch_sub(1, Relaxed);
            guarded.home.stuck_workers.clear(guarded.id, worker);
            let stuck = stuck(worker, slot, seen.elapsed);
            guarded.listener.went_on(guarded, stuck, found, seen.told);
        }
    }

    /// It is guarded no more.
    fn close(&mut self) {
        for worker in 0..self.seen.len() {
            let slot = self.workers.seat(worker).and_then(Seat::slot);
            self.went_on(worker, slot);
        }
    }
}

fn stuck(worker: usize, slot: Option<&Slot>, elapsed: u64) -> Stuck {
    let watches = |slot: &Slot| slot.read().iter().map(|poll| poll.watch).collect();
    Stuck {
        worker,
        thread: slot.and_then(|slot| slot.margin().thread()),
        watches: slot.map(watches).unwrap_or_default(),
        elapsed,
    }
}

/// The same of any thread that is none of the workers that are known. A poll in which a worker has been for
/// so long is no younger than half of that: there are others that have nothing to do with it.
fn has_an_unknown_thread_a_stall(workers: &Workers, elapsed: u64, clock: &Clock) -> bool {
    let all = slot::all().into_iter();
    let mut others = all.filter(|slot| !workers.has(slot.index()));
    others.any(|slot| has_a_stall(slot, elapsed / 2, clock))
}

/// Whether a watched poll of a thread, of at least that age, is over its own budget: then that is what is
/// told.
fn has_a_stall(slot: &Slot, age: u64, clock: &Clock) -> bool {
    let now = clock.raw();
    let is_mine =
        |poll: &InFlight| home_of(poll.watch).is_some_and(|home| home.clock.is_same(clock));
    let nest = slot.read().only(is_mine);
    let standings = nest.standings(|poll| clock.nanos_between(poll.start, now));
    let mut watched = standings
        .iter()
        .filter(|standing| !standing.poll.kind.is_off_the_books());
    watched.any(|standing| standing.elapsed >= age && standing.is_over())
}

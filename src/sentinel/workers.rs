//! Looks at the workers of guarded runtimes: which one is stuck, and why.
//!
//! A worker whose counters stand still is *busy*: it has not returned to its driver. It is *stuck* if it is
//! proved to be in one poll for longer than the budget ([`one_poll`](super::one_poll)). Each of the two is a
//! *stretch*, which is examined as a poll is, by the accounts and the stack of its thread. A stretch begins
//! where it was first seen, so it is never said to be longer than it was.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::examine::{Examined, examine};
use super::one_poll::{Asked, Breakpoints, Link, PollSites, Witness};
use super::stacks::Taker;
use crate::attribution::CpuSample;
use crate::clock::Clock;
use crate::runtime::{self, Guarded, Reading, Stuck, StuckKind, Workers};
use crate::slot::{
    self, BudgetStatus, Diagnosis, InFlightPoll, Kind, ReportState, Slot, ThreadKey,
};
use crate::stack::Stack;
use crate::suspension::SUSPENSIONS;
use crate::watch::{Stacks, StuckWorkers, is_of_clock};

/// After this number of budgets a worker is reported of which nothing proves that it is in one poll. tokio's
/// counters stand still for up to 244 polls, which on a busy worker take less.
const UNPROVED_BUDGETS: u64 = 10;

/// From this number of budgets on the tasks of such a worker are compared: another task is another poll.
const COMPARED_BUDGETS: u64 = 5;

/// How often the sentinel looks within a budget at a worker whose counters stand still: a proof takes two
/// looks to begin, and must last for a budget. A worker that blocks is then named within 1.5 budgets.
const LOOKS: u64 = 10;

/// More watched polls than tokio makes between two updates of the counters, by default and with watches as
/// deep as they go: 244 polls, 15 watches. A worker with more is in an executor of the program's own, or
/// its runtime has a large `event_interval`; the sentinel reports it as busy then.
const MOST_WATCHED_POLLS: u64 = 244 * 15;

/// How often within a budget the sentinel examines a stretch again that was no code's fault: most often a
/// thread had to wait for a moment until it was run, and is over its budget as soon as that is made up for.
const EXCUSES: u64 = 20;

/// How many nanoseconds lie at most between two examinations of a worker that is stuck: a runtime of the
/// current thread may end without moving a counter.
const LONGEST_WAIT_NANOS: u64 = 1_000_000_000;

/// How often a thread is asked for its stack that does not answer, before its worker is reported without;
/// and how many nanoseconds lie between.
const STACK_TRIES: u32 = 8;
const STACK_AGAIN_NANOS: u64 = 5_000_000;

/// How often the sentinel looks whether a thread sleeps again that was woken for its stack, and how long it
/// waits between: going back to sleep takes some microseconds.
const SLEEPS_AGAIN_LOOKS: u32 = 10;
const SLEEPS_AGAIN_WAIT: std::time::Duration = std::time::Duration::from_micros(100);

/// What was seen of all guarded runtimes.
#[derive(Default)]
pub(super) struct Rounds {
    rounds: Vec<Round>,
    common: Common,
}

/// What the workers of all runtimes share.
#[derive(Default)]
struct Common {
    numbers: Numbers,
    sites: PollSites,
}

/// Numbers the stretches, so that the notes of one are not taken for those of another.
struct Numbers(u64);

impl Default for Numbers {
    fn default() -> Self {
        // Below are the numbers that a ground has.
        Self(2)
    }
}

impl Numbers {
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

/// A time in which a worker was in one state. Its beginning is a raw reading of the clock.
#[derive(Clone, Copy, Default)]
struct Stretch {
    number: u64,
    since: u64,
    /// The accounts of the thread before it, as [`ThreadDiagnostics::account`](crate::slot::ThreadDiagnostics::account) gives them.
    accounts: Option<(CpuSample, CpuSample)>,
}

/// One worker, since its counters last moved.
#[derive(Default)]
struct Seen {
    reading: Option<Reading>,
    witness: Witness,
    /// Its counters have stood still.
    busy: Stretch,
    /// It has been in one poll, for part of that.
    one_poll: Stretch,
    /// The state of the slot of its thread when it became busy, and at the last look.
    first_state: u64,
    state: u64,
    breakpoints: Breakpoints,
    /// The type of the task that its stack showed.
    task: Option<usize>,
    /// Of `busy`, in nanoseconds: how long it has lasted, when a watched poll last began or ended, when to
    /// examine the worker again, when to look at its task again, when to report it again, and when it was
    /// last proved to be stuck.
    elapsed: u64,
    watched_at: u64,
    again_at: u64,
    task_at: u64,
    tell_at: u64,
    proved_at: u64,
    late_stacks: u32,
    /// As what it is counted, and what is known of that.
    found: Option<Found>,
    told: ReportState,
}

struct Found {
    kind: StuckKind,
    finding: Diagnosis,
    /// Nanoseconds.
    elapsed: u64,
}

/// What an examination comes to.
enum View {
    Stuck(Diagnosis),
    /// It is nobody's fault, so far.
    Innocent,
    /// There is no worker: no thread is in `block_on`.
    NoWorker,
    /// The thread is not the worker that it was taken for.
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
        let Self { rounds, common } = self;
        let dues = rounds.iter_mut().map(|round| round.look(means, common));
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
            let goes_on = all.iter().any(is_same) && round.guarded.is_attached();
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

    fn look(&mut self, means: &mut Means<'_>, common: &mut Common) -> Option<u64> {
        let workers = 0..self.workers.count();
        let dues = workers.map(|worker| self.look_at(worker, means, common));
        dues.flatten().min()
    }

    /// Looks at one worker, and says in how many nanoseconds to look again at the latest.
    fn look_at(
        &mut self,
        worker: usize,
        means: &mut Means<'_>,
        common: &mut Common,
    ) -> Option<u64> {
        let reading = self.workers.read(worker);
        let slot = self.thread_of(worker, means.clock);
        if reading.is_parked() {
            self.went_on(worker, slot);
            self.seen[worker] = Seen::default();
            return None;
        }
        let witness = self.witness(worker, slot);
        let link = if Some(reading) != self.seen[worker].reading {
            self.seen[worker].breakpoints = Breakpoints::default();
            Link::AnotherPoll
        } else if slot.is_some_and(|slot| is_excused(slot, means.clock)) {
            Link::AnotherPoll
        } else {
            self.link(worker, slot, witness, means, common)
        };
        self.seen[worker].witness = witness;
        match link {
            Link::SamePoll => {}
            Link::Unproved => self.seen[worker].one_poll = Stretch::begin(slot, means, common),
            Link::AnotherPoll => {
                self.went_on(worker, slot);
                let stretch = Stretch::begin(slot, means, common);
                let seen = &mut self.seen[worker];
                *seen = Seen {
                    reading: Some(reading),
                    witness,
                    busy: stretch,
                    one_poll: stretch,
                    first_state: slot.map_or(0, Slot::state),
                    breakpoints: std::mem::take(&mut seen.breakpoints),
                    ..Seen::default()
                };
            }
        }
        let due = self.see_to(worker, slot, means);
        // Once it is found, a proof need not be sought: it holds over any time between two looks.
        let looks = if self.seen[worker].found.is_some() {
            1
        } else {
            LOOKS
        };
        Some(due.min(self.guarded.budget_nanos / looks))
    }

    /// The slot of the thread that is a worker, if that is known. A thread in a contained poll has handed its
    /// worker over.
    fn thread_of(&self, worker: usize, clock: &Clock) -> Option<&'static Slot> {
        let slot = self.workers.thread_key(worker).and_then(ThreadKey::slot)?;
        let nest = slot.read().only(|poll| is_of_clock(poll, clock));
        let has_handed_over = nest.iter().any(|poll| poll.kind == Kind::Contained);
        if has_handed_over {
            self.workers.unbind(worker);
        }
        (!has_handed_over).then_some(slot)
    }

    fn witness(&self, worker: usize, slot: Option<&Slot>) -> Witness {
        let seat = self.workers.thread_key(worker);
        let Some((slot, seat)) = slot.zip(seat) else {
            return Witness::default();
        };
        Witness::of(slot, seat.number(), self.workers.probes_run(worker))
    }

    /// What is proved since the look before, of a worker whose counters stand still.
    fn link(
        &mut self,
        worker: usize,
        slot: Option<&Slot>,
        witness: Witness,
        means: &mut Means<'_>,
        common: &mut Common,
    ) -> Link {
        let before = &self.seen[worker].witness;
        let proved = witness.link(before);
        if witness.has_fallen_asleep_since(before) {
            // The next look proves its sleep, which a signal for its stack would cut short.
            return proved;
        }
        let stacks = self.guarded.watchdog.slow.orders().stacks;
        let (Link::Unproved, Some(slot), Some(taker), false) = (
            proved,
            slot,
            means.taker.as_deref_mut(),
            stacks == Stacks::Never,
        ) else {
            return proved;
        };
        let seen = &mut self.seen[worker];
        let poll = seen.one_poll.as_poll(self.guarded.budget_nanos);
        let mut asked = Asked {
            slot,
            poll: &poll,
            taker,
            stacks,
        };
        match seen.breakpoints.link(&mut common.sites, &mut asked) {
            Link::Unproved => seen.compare_tasks(&mut asked, self.guarded.budget_nanos),
            proved => proved,
        }
    }

    /// Examines a worker that is over its budget, and says in how many nanoseconds to look again.
    fn see_to(&mut self, worker: usize, slot: Option<&'static Slot>, means: &mut Means<'_>) -> u64 {
        let budget = self.guarded.budget_nanos;
        let now = means.clock.raw();
        let elapsed = |since| means.clock.nanos_between(since, now);
        let seen = &mut self.seen[worker];
        let (busy, one_poll) = (elapsed(seen.busy.since), elapsed(seen.one_poll.since));
        seen.elapsed = busy;
        let state = slot.map_or(0, Slot::state);
        if std::mem::replace(&mut seen.state, state) != state {
            seen.watched_at = busy;
        }
        let (kind, stretch, budget_status) = if one_poll > budget && slot.is_some() {
            seen.proved_at = busy;
            (StuckKind::OnePoll, seen.one_poll, one_poll)
        } else if seen.is_long_unproved(budget) {
            (StuckKind::Busy, seen.busy, busy)
        } else {
            self.forget_what_is_proved_no_more(worker, slot);
            return budget.saturating_add(1).saturating_sub(one_poll);
        };
        let seen = &mut self.seen[worker];
        if let Some(found) = seen.found.as_mut().filter(|found| found.kind == kind) {
            // What is reported at its end.
            found.elapsed = budget_status;
        }
        let is_proved_now = kind == StuckKind::OnePoll
            && seen.found.as_ref().is_some_and(|found| found.kind != kind);
        if busy >= seen.again_at || is_proved_now {
            let budget_status = BudgetStatus {
                poll: stretch.as_poll(budget_of(kind, budget)),
                elapsed: budget_status,
                charged: budget_status,
            };
            slot.inspect(|slot| stretch.note(slot, &budget_status.poll));
            self.examine_and_tell(worker, slot, kind, &budget_status, means);
        }
        let seen = &self.seen[worker];
        seen.again_at.saturating_sub(seen.elapsed)
    }

    /// A proof that is not renewed within two budgets holds no more: the worker may have gone on since.
    fn forget_what_is_proved_no_more(&mut self, worker: usize, slot: Option<&Slot>) {
        let seen = &self.seen[worker];
        let is_proved = |found: &Found| found.kind == StuckKind::OnePoll;
        let since = seen.elapsed - seen.proved_at;
        if seen.found.as_ref().is_some_and(is_proved) && since > 2 * self.guarded.budget_nanos {
            self.went_on(worker, slot);
        }
    }

    fn examine_and_tell(
        &mut self,
        worker: usize,
        slot: Option<&'static Slot>,
        kind: StuckKind,
        budget_status: &BudgetStatus,
        means: &mut Means<'_>,
    ) {
        // Before its stack is taken, which takes a while: the poll may end meanwhile.
        let is_told = match slot {
            Some(slot) => has_a_reported_stall(slot, 0, means.clock),
            None => {
                has_an_unknown_thread_a_stall(&self.workers, budget_status.elapsed, means.clock)
            }
        };
        let (view, slot) = match slot.map(|slot| self.examine(slot, kind, budget_status, means)) {
            Some(View::AnotherThread) => {
                self.workers.unbind(worker);
                (View::Innocent, None)
            }
            None => (self.guess(), None),
            Some(view) => (view, slot),
        };
        let elapsed = self.seen[worker].elapsed;
        match view {
            View::Stuck(finding) if self.is_as_it_was(worker, slot, kind) => {
                let found = Found {
                    kind,
                    finding,
                    elapsed: budget_status.elapsed,
                };
                self.found(worker, slot, found, is_told);
            }
            View::Stuck(_) | View::Innocent => {
                self.seen[worker].again_at = elapsed + self.guarded.budget_nanos / EXCUSES;
            }
            View::NoWorker | View::AnotherThread => {
                self.went_on(worker, slot);
                self.seen[worker].again_at = elapsed.saturating_mul(2);
            }
        }
    }

    /// Whether nothing has changed by the end of an examination: its stack may be that of another poll.
    fn is_as_it_was(&mut self, worker: usize, slot: Option<&Slot>, kind: StuckKind) -> bool {
        if Some(self.workers.read(worker)) != self.seen[worker].reading {
            return false;
        }
        if kind == StuckKind::Busy {
            return true;
        }
        let before = self.seen[worker].witness;
        let mut now = self.witness(worker, slot);
        for _ in 0..SLEEPS_AGAIN_LOOKS {
            if !before.is_asleep() || now.is_asleep() {
                break;
            }
            std::thread::sleep(SLEEPS_AGAIN_WAIT);
            now = self.witness(worker, slot);
        }
        let seen = &mut self.seen[worker];
        seen.witness = now;
        now.link_after_a_stack(&before) == Link::SamePoll || seen.breakpoints.is_still_proved()
    }

    fn examine(
        &self,
        slot: &Slot,
        kind: StuckKind,
        budget_status: &BudgetStatus,
        means: &mut Means<'_>,
    ) -> View {
        let orders = self.guarded.watchdog.slow.orders();
        let taker = means.taker.as_deref_mut();
        let Examined::Guilty(finding) = examine(slot, budget_status, means.clock, taker, orders)
        else {
            return View::Innocent;
        };
        let is_loading = means.taker.as_deref_mut().is_some_and(Taker::is_loading);
        if is_loading && !is_long(budget_status, self.guarded.budget_nanos) {
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
            // It waits in a lock of the runtime, or in a hook: that is no poll.
            false if kind == StuckKind::OnePoll && is_in(Taker::is_between_polls) => View::Innocent,
            _ => View::Stuck(finding),
        }
    }

    /// Of a thread that is not known nothing is known. A runtime of the current thread may have none.
    fn guess(&self) -> View {
        match self.workers.is_current_thread() {
            true => View::Innocent,
            false => View::Stuck(Diagnosis::default()),
        }
    }

    /// Counts a worker that is stuck or busy, and reports it unless a watched poll `is_told` instead.
    fn found(&mut self, worker: usize, slot: Option<&Slot>, found: Found, is_told: bool) {
        let Self { guarded, seen, .. } = self;
        let seen = &mut seen[worker];
        if found.finding.is_stack_late && seen.late_stacks < STACK_TRIES {
            seen.late_stacks += 1;
            seen.again_at = seen.elapsed + STACK_AGAIN_NANOS;
            return;
        }
        let had = seen.found.take();
        let since = match found.kind {
            StuckKind::OnePoll => seen.one_poll.since,
            StuckKind::Busy => seen.busy.since,
        };
        let is_new = had.as_ref().map(|had| had.kind) != Some(found.kind);
        if is_new {
            if let Some(had) = &had {
                count_no_more(guarded, worker, had.kind);
            }
            count(guarded, worker, found.kind, since);
        }
        let had = had.and_then(|had| had.finding.stack);
        let found = Found {
            finding: Diagnosis {
                stack: found.finding.stack.or(had),
                ..found.finding
            },
            ..found
        };
        let stuck = stuck(worker, slot, &found, guarded.budget_nanos);
        let finding = found.finding.clone();
        seen.found = Some(found);
        seen.again_at = seen.elapsed + stuck.elapsed.min(LONGEST_WAIT_NANOS);
        seen.late_stacks = 0;
        if is_told && slot.is_none() {
            // The poll that is told may be another thread's, and may soon be over.
            seen.again_at = seen.elapsed + guarded.budget_nanos;
            return;
        }
        if is_told || seen.elapsed < seen.tell_at && !is_new {
            return;
        }
        guarded
            .listener
            .on_stuck(guarded, stuck, finding, &mut seen.told);
        // The same scale as the limit's: one that was left out asks again.
        seen.tell_at = seen.elapsed.saturating_mul(2);
        if seen.told == ReportState::Suppressed {
            seen.again_at = seen.elapsed + guarded.budget_nanos;
            seen.tell_at = seen.again_at;
        }
    }

    /// The worker is stuck no more, if it was.
    fn went_on(&mut self, worker: usize, slot: Option<&Slot>) {
        let Self { guarded, seen, .. } = self;
        let seen = &mut seen[worker];
        let told = std::mem::take(&mut seen.told);
        if let Some(found) = seen.found.take() {
            count_no_more(guarded, worker, found.kind);
            let stuck = stuck(worker, slot, &found, guarded.budget_nanos);
            guarded
                .listener
                .went_on(guarded, stuck, found.finding, told);
        }
    }

    /// It is guarded no more.
    fn close(&mut self) {
        for worker in 0..self.seen.len() {
            let slot = self.workers.thread_key(worker).and_then(ThreadKey::slot);
            self.went_on(worker, slot);
        }
    }
}

impl Stretch {
    /// One that begins at this look. The account of its thread comes after, so that it is one from within:
    /// what the thread does from then on is known.
    fn begin(slot: Option<&Slot>, means: &Means<'_>, common: &mut Common) -> Self {
        let clock = means.clock;
        let since = clock.raw();
        Self {
            number: common.numbers.next(),
            since,
            accounts: slot.and_then(|slot| slot.diagnostics().account(clock.raw(), clock)),
        }
    }

    /// As if it were a poll, around all others.
    fn as_poll(&self, budget: u64) -> InFlightPoll {
        InFlightPoll::of_worker(self.number, self.since, budget)
    }

    /// Puts down what was known when it began, for whoever examines it.
    fn note(&self, slot: &Slot, poll: &InFlightPoll) {
        if let Some((before, now)) = self.accounts {
            slot.diagnostics().see(poll, before, now);
        }
    }
}

impl Seen {
    /// Whether it is to be reported though nothing proves that it is in one poll. A watched poll that began or
    /// ended shows that it goes on, unless there are too many of them.
    fn is_long_unproved(&self, budget: u64) -> bool {
        let suspended = SUSPENSIONS.since(self.busy.since);
        let is_long =
            |nanos: u64| nanos.saturating_sub(suspended) > budget.saturating_mul(UNPROVED_BUDGETS);
        let watched_polls = slot::changes_between(self.first_state, self.state) / 2;
        is_long(self.elapsed - self.watched_at)
            || is_long(self.elapsed) && watched_polls > MOST_WATCHED_POLLS
    }

    /// Whether a worker of which nothing else is known has come to a task of another type.
    fn compare_tasks(&mut self, asked: &mut Asked<'_>, budget: u64) -> Link {
        if self.elapsed < self.task_at.max(budget.saturating_mul(COMPARED_BUDGETS)) {
            return Link::Unproved;
        }
        self.task_at = self.elapsed + budget / 2;
        let Some(task) = asked.poll_site().and_then(|site| site.task) else {
            return Link::Unproved;
        };
        match self.task.replace(task) {
            Some(before) if before != task => Link::AnotherPoll,
            _ => Link::Unproved,
        }
    }
}

/// By how many nanoseconds a worker is over its budget as what it is reported.
fn budget_of(kind: StuckKind, budget: u64) -> u64 {
    match kind {
        StuckKind::OnePoll => budget,
        StuckKind::Busy => budget.saturating_mul(UNPROVED_BUDGETS),
    }
}

/// Whether a stretch has lasted for ten budgets: then it is reported with whatever is known.
fn is_long(budget_status: &BudgetStatus, budget: u64) -> bool {
    let suspended = SUSPENSIONS.since(budget_status.poll.start);
    budget_status.elapsed.saturating_sub(suspended) > budget.saturating_mul(UNPROVED_BUDGETS)
}

fn count(guarded: &Guarded, worker: usize, kind: StuckKind, since: u64) {
    let counts = &guarded.counts;
    match kind {
        StuckKind::OnePoll => {
            counts.stuck.fetch_add(1, Relaxed);
            counts.stalls.fetch_add(1, Relaxed);
        }
        StuckKind::Busy => drop(counts.busy.fetch_add(1, Relaxed)),
    }
    list(guarded, kind).insert(guarded.id, worker, since);
}

fn count_no_more(guarded: &Guarded, worker: usize, kind: StuckKind) {
    let counts = &guarded.counts;
    match kind {
        StuckKind::OnePoll => counts.stuck.fetch_sub(1, Relaxed),
        StuckKind::Busy => counts.busy.fetch_sub(1, Relaxed),
    };
    list(guarded, kind).remove(guarded.id, worker);
}

fn list(guarded: &Guarded, kind: StuckKind) -> &StuckWorkers {
    match kind {
        StuckKind::OnePoll => &guarded.watchdog.stuck_workers,
        StuckKind::Busy => &guarded.watchdog.busy_workers,
    }
}

fn stuck(worker: usize, slot: Option<&Slot>, found: &Found, budget: u64) -> Stuck {
    let watches = |slot: &Slot| slot.read().iter().map(|poll| poll.watch).collect();
    Stuck {
        kind: found.kind,
        worker,
        thread: slot.and_then(|slot| slot.diagnostics().thread()),
        watches: slot.map(watches).unwrap_or_default(),
        elapsed: found.elapsed,
        budget: budget_of(found.kind, budget),
    }
}

/// Whether the thread is within a declared exception, which excuses its worker too.
fn is_excused(slot: &Slot, clock: &Clock) -> bool {
    let (polls, now) = (slot.read().seqs(), clock.raw());
    let diagnostics = slot.diagnostics();
    let exceptions = &diagnostics.exceptions;
    exceptions.is_within_one(&polls, |since| clock.nanos_between(since, now))
}

/// The same of any thread that is none of the workers that are known. A poll in which a worker has been for
/// so long is no younger than half of that: there are others that have nothing to do with it.
fn has_an_unknown_thread_a_stall(workers: &Workers, elapsed: u64, clock: &Clock) -> bool {
    let all = slot::all().into_iter();
    let mut others = all.filter(|slot| !workers.has(slot.index()));
    others.any(|slot| has_a_reported_stall(slot, elapsed / 2, clock))
}

/// Whether a watched poll of a thread, of at least that age, is over its own budget and was reported: then
/// the worker is not, too. One that the limit left out keeps no worker from being reported.
fn has_a_reported_stall(slot: &Slot, age: u64, clock: &Clock) -> bool {
    let now = clock.raw();
    let nest = slot.read().only(|poll| is_of_clock(poll, clock));
    let old = nest
        .iter()
        .filter(|poll| clock.nanos_between(poll.start, now) >= age);
    let mut watched = old.filter(|poll| !poll.kind.is_off_the_books());
    watched.any(|poll| {
        let diagnostics = slot.hold(poll);
        diagnostics.is_some_and(|mut diagnostics| diagnostics.note(poll).was_told())
    })
}

//! Floor 3: the state of guarded runtimes.
//!
//! A guard that a runtime builder made has no runtime at first. The first thread of the runtime *attaches* it. The
//! guard *ends* with the runtime: it drops the runtime's handle then, even while the user still holds the guard.

mod lag;
mod snapshot;
mod workers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use tokio::runtime::Handle;

use crate::clock::Clock;
use crate::counters::{RuntimeCounters, runtime_counters};
use crate::rate_limit::Limiter;
use crate::report::{StuckKind, ThreadInfo};
use crate::slot::{Diagnosis, ReportState, SENTINEL_PARKER};
use crate::sync::{Lock, LockGuard};
use crate::watch::{BudgetToken, WatchdogInner};

pub(crate) use lag::Lag;
pub(crate) use snapshot::{snapshot, snapshot_of};
pub(crate) use workers::{WorkerReading, Workers};

/// A worker that is stuck, or was.
#[derive(Debug)]
pub(crate) struct Stuck {
    pub(crate) kind: StuckKind,
    pub(crate) worker: usize,
    pub(crate) thread: Option<ThreadInfo>,
    /// The ids of the watches of its polls in flight, outermost first.
    pub(crate) watches: Vec<u64>,
    /// A lower bound.
    pub(crate) elapsed_nanos: u64,
    /// The worker is stuck past this time.
    pub(crate) budget_nanos: u64,
}

/// Receives stuck workers from the sentinel. The dispatcher implements it, on a higher floor.
pub(crate) trait StuckWorkerSink: Send + Sync {
    /// Handles a stuck worker, each time that a report is due. Updates `state`.
    fn on_stuck(
        &self,
        guarded: &Guarded,
        stuck: Stuck,
        diagnosis: Diagnosis,
        state: &mut ReportState,
    );

    /// Handles a worker that was stuck and has gone on.
    fn on_continued(
        &self,
        guarded: &Guarded,
        stuck: Stuck,
        diagnosis: Diagnosis,
        state: ReportState,
    );
}

/// Scans of a worker within its budget while its counters move. The start of a poll is then known to a quarter of the
/// budget. An idle guard costs a wake-up for each scan.
const SCANS_PER_BUDGET: u64 = 4;

/// One guarded runtime.
pub(crate) struct Guarded {
    /// Unique in the process.
    pub(crate) id: u64,
    pub(crate) name: Arc<str>,
    pub(crate) counters: &'static RuntimeCounters,
    pub(crate) watchdog: Arc<WatchdogInner>,
    pub(crate) sink: Arc<dyn StuckWorkerSink>,
    /// The longest time that a worker may make no progress.
    pub(crate) budget_nanos: u64,
    pub(crate) reports: Limiter,
    pub(crate) lag: Lag,
    state: Lock<GuardState>,
    has_ended: AtomicBool,
    #[expect(dead_code, reason = "held for its destructor")]
    in_use: BudgetToken,
}

#[derive(Default)]
enum GuardState {
    /// The runtime is not built yet.
    #[default]
    Unattached,
    Attached(Arc<Workers>),
    Ended,
}

static GUARDED: Lock<Vec<Arc<Guarded>>> = Lock::new(Vec::new());
/// The length of [`GUARDED`]. Frequent readers need no lock for it.
static COUNT: AtomicUsize = AtomicUsize::new(0);

fn lock() -> LockGuard<'static, Vec<Arc<Guarded>>> {
    GUARDED.lock()
}

/// Returns all runtimes that are guarded now.
pub(crate) fn all() -> Vec<Arc<Guarded>> {
    match is_any() {
        true => lock().clone(),
        false => Vec::new(),
    }
}

/// Returns whether any runtime is guarded.
pub(crate) fn is_any() -> bool {
    COUNT.load(Relaxed) > 0
}

impl Guarded {
    pub(crate) fn new(
        name: &str,
        watchdog: Arc<WatchdogInner>,
        sink: Arc<dyn StuckWorkerSink>,
        budget_nanos: u64,
    ) -> Arc<Self> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let counters = runtime_counters(name);
        Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Relaxed),
            // Past the limit of names, the counters have another name than the caller asked for.
            name: Arc::clone(&counters.name),
            counters,
            watchdog,
            sink,
            budget_nanos,
            reports: Limiter::default(),
            lag: Lag::new(),
            state: Lock::new(GuardState::Unattached),
            has_ended: AtomicBool::new(false),
            in_use: BudgetToken::new(budget_nanos / SCANS_PER_BUDGET),
        })
    }

    /// Makes the sentinel scan this runtime from now on.
    pub(crate) fn register(self: &Arc<Self>) {
        let mut all = lock();
        all.push(Arc::clone(self));
        COUNT.store(all.len(), Relaxed);
        drop(all);
        SENTINEL_PARKER.notify();
    }

    /// Makes the sentinel scan this runtime no more.
    pub(crate) fn unregister(&self) {
        let mut all = lock();
        all.retain(|guarded| guarded.id != self.id);
        COUNT.store(all.len(), Relaxed);
        drop(all);
        self.end();
        // The sentinel clears the stuck workers of this runtime from health and metrics.
        SENTINEL_PARKER.unpark();
    }

    /// Attaches the runtime, if none is attached yet.
    pub(crate) fn attach(&self, handle: &Handle) {
        let mut state = self.state();
        if matches!(*state, GuardState::Unattached) {
            *state = GuardState::Attached(Arc::new(Workers::of(handle)));
        }
    }

    /// Ends the guard: the runtime has ended, or the user dropped the guard.
    pub(crate) fn end(&self) {
        self.has_ended.store(true, Relaxed);
        let state = std::mem::replace(&mut *self.state(), GuardState::Ended);
        // After the lock is released: this may be the last handle, whose drop shuts the runtime down.
        drop(state);
    }

    /// Returns whether the guard has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.load(Relaxed)
    }

    pub(crate) fn is_attached(&self) -> bool {
        matches!(*self.state(), GuardState::Attached(_))
    }

    /// Returns the workers of the attached runtime.
    pub(crate) fn workers(&self) -> Option<Arc<Workers>> {
        match &*self.state() {
            GuardState::Attached(workers) => Some(Arc::clone(workers)),
            GuardState::Unattached | GuardState::Ended => None,
        }
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.watchdog.clock
    }

    fn state(&self) -> LockGuard<'_, GuardState> {
        self.state.lock()
    }
}

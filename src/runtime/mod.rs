//! Floor 3: the runtimes that are guarded, and what is known of them.
//!
//! A guard begins without a runtime if it was made of a builder, is *armed* by the first thread of the
//! runtime that calls, and is *over* when the runtime has ended. Then it lets go of the runtime's
//! handle, whoever still holds the guard.

mod impact;
mod lag;
mod workers;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use tokio::runtime::Handle;

use crate::clock::Clock;
use crate::counts::{RuntimeCounts, enroll_runtime};
use crate::limit::Limiter;
use crate::slot::{DOZE, Finding, ThreadInfo, Told};
use crate::sync::{Lock, LockGuard};
use crate::watch::{Home, InUse};

pub use impact::Impact;
pub(crate) use impact::of as impact_of;
pub(crate) use lag::Lag;
pub(crate) use workers::{Reading, Workers};

/// What is known of a worker that does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StuckKind {
    /// The worker is in one poll: its thread slept in one system call, a watched poll did not end, or a
    /// breakpoint behind tokio's call of the poll was not hit.
    OnePoll,
    /// The worker is busy and has not returned to its driver, in one poll or in many: nothing proves which.
    /// It is reported after ten budgets. Timers and sockets are not polled in either case.
    Busy,
}

impl fmt::Display for StuckKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StuckKind::OnePoll => "one poll",
            StuckKind::Busy => "busy",
        })
    }
}

/// A worker that is stuck, or was.
#[derive(Debug)]
pub(crate) struct Stuck {
    pub(crate) kind: StuckKind,
    pub(crate) worker: usize,
    pub(crate) thread: Option<ThreadInfo>,
    /// Of its polls in flight, outermost first.
    pub(crate) watches: Vec<u64>,
    /// For how many nanoseconds that has lasted, at least.
    pub(crate) elapsed: u64,
    /// By this many nanoseconds it becomes stuck.
    pub(crate) budget: u64,
}

/// Where stuck workers go. The floor above implements it; this one only knows that somebody listens.
pub(crate) trait OnStuck: Send + Sync {
    /// One is stuck. Called once for each time that it is to be told; `told` is what was told before,
    /// and is brought up to date.
    fn on_stuck(&self, guarded: &Guarded, stuck: Stuck, found: Finding, told: &mut Told);

    /// One was stuck, and has gone on.
    fn went_on(&self, guarded: &Guarded, stuck: Stuck, found: Finding, told: Told);
}

/// How often the sentinel looks at a worker within the budget, as long as its counters move. The beginning of a
/// poll is then known to a quarter of the budget. An idle guard costs a wake-up for each look.
const LOOKS: u64 = 4;

/// One runtime that is guarded.
pub(crate) struct Guarded {
    /// No other guard of the process has it.
    pub(crate) id: u64,
    pub(crate) name: Arc<str>,
    pub(crate) counts: &'static RuntimeCounts,
    pub(crate) home: Arc<Home>,
    pub(crate) listener: Arc<dyn OnStuck>,
    /// For how long a worker may make no progress, in nanoseconds.
    pub(crate) budget: u64,
    pub(crate) reports: Limiter,
    pub(crate) lag: Lag,
    stage: Lock<Stage>,
    is_over: AtomicBool,
    #[expect(dead_code, reason = "held for its destructor")]
    in_use: InUse,
}

#[derive(Default)]
enum Stage {
    /// For a runtime that is yet to be built.
    #[default]
    Waiting,
    Armed(Arc<Workers>),
    Over,
}

static GUARDED: Lock<Vec<Arc<Guarded>>> = Lock::new(Vec::new());
/// How many there are, so that who asks often need not take the lock.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Nothing panics while it holds this lock; if it ever did, the list would still be whole.
fn lock() -> LockGuard<'static, Vec<Arc<Guarded>>> {
    GUARDED.lock()
}

/// All runtimes that are guarded at present.
pub(crate) fn all() -> Vec<Arc<Guarded>> {
    match is_any() {
        true => lock().clone(),
        false => Vec::new(),
    }
}

/// Whether any runtime is guarded.
pub(crate) fn is_any() -> bool {
    COUNT.load(Relaxed) > 0
}

impl Guarded {
    pub(crate) fn new(
        name: &str,
        home: Arc<Home>,
        listener: Arc<dyn OnStuck>,
        budget: u64,
    ) -> Arc<Self> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let counts = enroll_runtime(name);
        Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Relaxed),
            // Past the limit of names, it is not the one that was asked for.
            name: Arc::clone(&counts.name),
            counts,
            home,
            listener,
            budget,
            reports: Limiter::default(),
            lag: Lag::new(),
            stage: Lock::new(Stage::Waiting),
            is_over: AtomicBool::new(false),
            in_use: InUse::new(budget / LOOKS, false),
        })
    }

    /// Has it looked at from now on.
    pub(crate) fn enlist(self: &Arc<Self>) {
        let mut all = lock();
        all.push(Arc::clone(self));
        COUNT.store(all.len(), Relaxed);
        drop(all);
        DOZE.rouse();
    }

    /// Has it looked at no more.
    pub(crate) fn strike_off(&self) {
        let mut all = lock();
        all.retain(|guarded| guarded.id != self.id);
        COUNT.store(all.len(), Relaxed);
        drop(all);
        self.end();
        // What was stuck is so no longer, as far as anybody wants to know.
        DOZE.prod();
    }

    /// Says which runtime it is, if that is not known yet.
    pub(crate) fn arm(&self, handle: &Handle) {
        let mut stage = self.stage();
        if matches!(*stage, Stage::Waiting) {
            *stage = Stage::Armed(Arc::new(Workers::of(handle)));
        }
    }

    /// The runtime has ended, or nobody wants to know of it any more.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Relaxed);
        let stage = std::mem::replace(&mut *self.stage(), Stage::Over);
        // Not under the lock: the handle may be the last one.
        drop(stage);
    }

    /// Whether nobody needs to tell it anything any more.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Relaxed)
    }

    pub(crate) fn is_armed(&self) -> bool {
        matches!(*self.stage(), Stage::Armed(_))
    }

    /// Its workers, while there are any.
    pub(crate) fn workers(&self) -> Option<Arc<Workers>> {
        match &*self.stage() {
            Stage::Armed(workers) => Some(Arc::clone(workers)),
            Stage::Waiting | Stage::Over => None,
        }
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.home.clock
    }

    fn stage(&self) -> LockGuard<'_, Stage> {
        self.stage.lock()
    }
}

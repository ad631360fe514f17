//! Floor 2: a named point of the program, and what is counted there.

#[cfg(feature = "metrics")]
mod aggregate;
mod budgets;
mod cells;
mod expected_overrun;
mod health;
mod ids;
mod in_flight;
mod policy;
mod registry;
mod sampled;
mod stats;
mod stuck_workers;
mod timing;

use std::borrow::Cow;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use crate::clock::{Clock, nanos_of};
use crate::report::{Allowance, SectionKind, ThreadInfo};
use crate::slot::{Diagnosis, ReportState};

#[cfg(feature = "metrics")]
pub(crate) use aggregate::{Aggregate, WatchSums, aggregate, register};
pub(crate) use budgets::BudgetToken;
pub(crate) use budgets::{shortest as shortest_budget, shortest_ticked};
pub(crate) use cells::{Counted, Totals, Undecided, WatchCounters};
pub use health::{Health, Status};
pub(crate) use ids::{name_of, watchdog_of};
#[cfg(feature = "page")]
pub(crate) use in_flight::polls_of_slot;
pub(crate) use in_flight::{PollStatus, is_of_clock, poll_statuses};
pub use policy::Stacks;
pub(crate) use policy::{Action, EscalationStep, Policy};
#[cfg(feature = "metrics")]
pub(crate) use registry::Unreported;
pub(crate) use registry::{OTHER, Registered, Registry, UNNAMED};
pub(crate) use sampled::Sampled;
pub use stats::{Snapshot, WatchStats};
pub(crate) use stuck_workers::StuckWorkers;
pub use timing::Timing;
pub(crate) use timing::tick_nanos;

/// A named point of the program whose polls are timed.
///
/// A handle: cloning it is cheap, and all clones count into the same statistics. Get one from
/// [`Watchdog::watch`](crate::Watchdog::watch), once, and keep it where futures are made. It keeps
/// its watchdog's statistics and reporters alive.
///
/// # Examples
///
/// ```
/// use shotclock::{WatchExt as _, Watchdog};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), shotclock::Error> {
/// let watchdog = Watchdog::builder().build()?;
/// let checkout = watchdog.watch("checkout");
///
/// let total = async { 40 + 2 }.watched(&checkout).await;
///
/// assert_eq!(total, 42);
/// assert_eq!(checkout.stats().polls, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Watch {
    inner: Arc<WatchInner>,
}

/// A watch with one of its budgets, and all that the hot path needs in one place.
struct WatchInner {
    clock: Clock,
    budget: Duration,
    budget_nanos: u64,
    /// Whether polls that are expected to overrun are contained.
    contained: bool,
    /// Whether a poll goes by ticks, and reads no clock.
    is_ticked: bool,
    #[expect(dead_code, reason = "held for its destructor")]
    in_use: BudgetToken,
    counters: Arc<WatchCounters>,
    watchdog: Arc<WatchdogInner>,
}

/// What the watches of one watchdog share.
pub(crate) struct WatchdogInner {
    pub(crate) clock: Clock,
    pub(crate) timing: Timing,
    pub(crate) budget: Duration,
    pub(crate) registry: Arc<Registry>,
    pub(crate) sink: Arc<dyn SlowPollSink>,
    pub(crate) containment: Containment,
    /// Those that are proved to be in one poll, and those that are only busy.
    pub(crate) stuck_workers: StuckWorkers,
    pub(crate) busy_workers: StuckWorkers,
}

/// Which polls of a watchdog are contained.
#[derive(Debug)]
pub(crate) struct Containment {
    /// Those of all watches, or of those that were asked for.
    pub(crate) everywhere: bool,
    /// At most so many at once, and how many there are.
    pub(crate) limit: usize,
    pub(crate) now: AtomicUsize,
}

impl WatchdogInner {
    /// How many polls are contained at this moment, and how many may be.
    pub(crate) fn contained(&self) -> (&AtomicUsize, usize) {
        (&self.containment.now, self.containment.limit)
    }
}

/// Receives slow polls. The dispatcher implements it, on a higher floor.
pub(crate) trait SlowPollSink: Send + Sync {
    /// Handles a slow poll that has ended, on the poll's own thread. `state` says what the sentinel reported before.
    fn on_slow_poll(
        &self,
        counters: &Arc<WatchCounters>,
        poll: Overrun,
        state: ReportState,
        diagnosis: EndDiagnosis,
    );

    /// Handles a stalled poll, each time that a report is due. The sentinel calls it. Updates `state`.
    fn on_stall(
        &self,
        counters: &WatchCounters,
        poll: Overrun,
        diagnosis: Diagnosis,
        state: &mut ReportState,
    );

    /// Reports a stalled poll for an escalation step, whatever the rate limit says.
    ///
    /// `reporter` is the index of the step's own reporter; without it, every reporter gets the report.
    fn on_escalation(
        &self,
        counters: &WatchCounters,
        poll: Overrun,
        diagnosis: Diagnosis,
        state: &mut ReportState,
        reporter: Option<usize>,
    );

    /// Returns what the sentinel does about stalls, apart from reports.
    fn policy(&self) -> &Policy;
}

/// The diagnosis of a slow poll at its end.
pub(crate) enum EndDiagnosis {
    Now(Diagnosis),
    /// The sentinel must scan first, because the process may have been suspended.
    Later(Box<dyn FnOnce() -> Diagnosis + Send>),
}

/// A poll over its budget.
#[derive(Debug)]
pub(crate) struct Overrun {
    pub(crate) kind: SectionKind,
    pub(crate) elapsed_nanos: u64,
    pub(crate) charged_nanos: u64,
    pub(crate) budget: Duration,
    pub(crate) location: &'static Location<'static>,
    /// The ids of the watches around, outermost first.
    pub(crate) outer_watches: Vec<u64>,
    pub(crate) thread: ThreadInfo,
    /// The index of the thread's slot.
    pub(crate) slot: Option<usize>,
    /// The sequence number of the poll in the slot.
    pub(crate) seq: Option<u64>,
    /// False for a poll that was reported while it ran, and whose time turned out to be that of a slow poll inside.
    pub(crate) is_slow: bool,
    /// Whether `allow_blocking` allowed it: then it is counted and not reported.
    pub(crate) is_allowed: bool,
    /// The declaration that the poll exceeded.
    pub(crate) exceeded_allowance: Option<Allowance>,
}

impl Watch {
    /// The one of that name, made if there is none yet.
    pub(crate) fn named(watchdog: &Arc<WatchdogInner>, name: impl Into<Cow<'static, str>>) -> Self {
        let name = name.into();
        let Registered {
            counters,
            is_first_past_limit,
        } = watchdog.registry.get_or_register(name.clone());
        if is_first_past_limit {
            tracing::warn!(
                target: "shotclock",
                name = &*name,
                "the limit of watches is reached: this name and all further ones share the watch {OTHER:?}"
            );
        }
        Self::new(counters, watchdog)
    }

    pub(crate) fn new(counters: Arc<WatchCounters>, watchdog: &Arc<WatchdogInner>) -> Self {
        ids::set_watchdog(counters.id, watchdog);
        let contained = watchdog.containment.everywhere;
        Self::bind(counters, Arc::clone(watchdog), watchdog.budget, contained)
    }

    fn bind(
        counters: Arc<WatchCounters>,
        watchdog: Arc<WatchdogInner>,
        budget: Duration,
        contained: bool,
    ) -> Self {
        let budget_nanos = nanos_of(budget);
        let is_ticked = watchdog.clock.is_real() && watchdog.timing.is_ticked(budget_nanos);
        let inner = WatchInner {
            clock: watchdog.clock.clone(),
            budget,
            budget_nanos,
            contained,
            is_ticked,
            in_use: BudgetToken::new(budget_nanos, is_ticked),
            counters,
            watchdog,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The name under which this watch counts.
    pub fn name(&self) -> &str {
        &self.inner.counters.name
    }

    /// How long a poll may run before it is slow.
    pub fn budget(&self) -> Duration {
        self.inner.budget
    }

    /// The same watch, counting into the same statistics, with another budget.
    ///
    /// A poll is slow when it ran *longer* than its budget. `Duration::ZERO` therefore makes slow
    /// every poll that takes measurable time, which is of use in tests (but no destructor of less
    /// than 10 µs, or 10 ms where the future was done). `Duration::MAX`, like everything
    /// beyond `u64::MAX` nanoseconds (584 years), means that no poll is ever slow.
    ///
    /// # Examples
    ///
    /// ```
    /// # use shotclock::Watchdog;
    /// # use std::time::Duration;
    /// # let watchdog = Watchdog::builder().build()?;
    /// let checkout = watchdog.watch("checkout");
    /// let strict = checkout.with_budget(Duration::from_millis(2));
    /// assert_eq!(strict.name(), "checkout");
    /// assert_eq!(strict.budget(), Duration::from_millis(2));
    /// assert_eq!(checkout.budget(), Duration::from_millis(10));
    /// # Ok::<(), shotclock::Error>(())
    /// ```
    #[must_use]
    pub fn with_budget(&self, budget: Duration) -> Self {
        let inner = &self.inner;
        let (counters, watchdog) = (Arc::clone(&inner.counters), Arc::clone(&inner.watchdog));
        Self::bind(counters, watchdog, budget, inner.contained)
    }

    /// The same watch, whose polls are contained where they are expected to overrun: the worker's
    /// other tasks are handed to another thread first ([`tokio::task::block_in_place`]), so that they
    /// go on while this code is not yet mended.
    ///
    /// It does so only where it pays. The watch learns by how much its polls overrun their budget, and
    /// hands over if that is more than it costs, some ten microseconds, which is measured as well. So
    /// it begins with the poll after the first slow one, and ends some dozens of polls after the last;
    /// a watch that behaves pays a comparison. The slow polls are reported as ever, as
    /// [`SectionKind::Contained`], and counted (`shotclock_contained_polls_total`): what is contained still
    /// holds up its own task, and takes a thread.
    ///
    /// [`WatchdogBuilder::contain`](crate::WatchdogBuilder::contain) does it for all watches of a watchdog,
    /// [`WatchdogBuilder::max_contained`](crate::WatchdogBuilder::max_contained) limits how many polls are contained
    /// at once.
    ///
    /// # Examples
    ///
    /// ```
    /// use shotclock::{WatchExt as _, Watchdog};
    /// use std::time::Duration;
    ///
    /// #[tokio::main]
    /// async fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///     let watchdog = Watchdog::builder().build()?;
    ///     let legacy = watchdog.watch("legacy").contained();
    ///     let work = async {
    ///         for _ in 0..3 {
    ///             std::thread::sleep(Duration::from_millis(100));
    ///             tokio::task::yield_now().await;
    ///         }
    ///     };
    ///     tokio::spawn(work.watched(&legacy)).await?;
    ///     assert!(legacy.stats().contained_polls >= 1);
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Non-guarantees
    ///
    /// Only a worker of a multi-thread runtime has tasks to hand over. On a current-thread runtime, in
    /// a `LocalSet`, in the future given to `block_on`, on the blocking pool and outside of a runtime,
    /// polls are plain ones ([`Watchdog::capabilities`](crate::Watchdog::capabilities) tells).
    ///
    /// Within `block_in_place` tokio's budget for cooperation does not hold: a poll that only that
    /// budget would have ended goes on. And it goes on while its runtime shuts down; where it panics
    /// because of that, its task is dropped as a plain one would have been, but the panic hook has
    /// printed its message.
    #[must_use]
    pub fn contained(&self) -> Self {
        let inner = &self.inner;
        let (counters, watchdog) = (Arc::clone(&inner.counters), Arc::clone(&inner.watchdog));
        Self::bind(counters, watchdog, inner.budget, true)
    }

    /// By how many nanoseconds the next poll is expected to overrun, where that is to be contained.
    #[inline]
    pub(crate) fn expected_overrun(&self) -> Option<u64> {
        let inner = &self.inner;
        inner
            .contained
            .then(|| inner.counters.expected_overrun.nanos())
    }

    /// What was counted here so far.
    ///
    /// Costs a walk over the threads that ever polled; it disturbs none of them.
    pub fn stats(&self) -> WatchStats {
        let inner = &self.inner;
        WatchStats::new(&inner.counters, &poll_statuses(&inner.clock))
    }

    #[inline]
    pub(crate) fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    #[inline]
    pub(crate) fn budget_nanos(&self) -> u64 {
        self.inner.budget_nanos
    }

    /// Whether its polls go by ticks.
    #[inline]
    pub(crate) fn is_ticked(&self) -> bool {
        self.inner.is_ticked
    }

    #[inline]
    pub(crate) fn counters(&self) -> &Arc<WatchCounters> {
        &self.inner.counters
    }

    pub(crate) fn watchdog(&self) -> &Arc<WatchdogInner> {
        &self.inner.watchdog
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("name", &self.name())
            .field("budget", &self.budget())
            .finish_non_exhaustive()
    }
}

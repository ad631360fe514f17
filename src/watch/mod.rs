//! Floor 2: watches, their counters, and the polls in flight.

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

/// Names a point of the program, and counts the polls there.
///
/// A watch is a handle. A clone is cheap, and all clones count into the same statistics. Get one from
/// [`Watchdog::watch`](crate::Watchdog::watch), once, and keep it where futures are made. It keeps the watchdog's
/// statistics and reporters alive.
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

/// A watch with one of its budgets, and everything that the hot path reads.
struct WatchInner {
    clock: Clock,
    budget: Duration,
    budget_nanos: u64,
    /// Whether to contain polls that are expected to be slow.
    contained: bool,
    #[expect(dead_code, reason = "held for its destructor")]
    in_use: BudgetToken,
    /// Present if polls are timed by the coarse clock.
    ticked: Option<BudgetToken>,
    counters: Arc<WatchCounters>,
    watchdog: Arc<WatchdogInner>,
}

/// The part of a watchdog that its watches share.
pub(crate) struct WatchdogInner {
    pub(crate) clock: Clock,
    pub(crate) timing: Timing,
    pub(crate) budget: Duration,
    pub(crate) registry: Arc<Registry>,
    pub(crate) sink: Arc<dyn SlowPollSink>,
    pub(crate) containment: Containment,
    /// Workers that are proved to be in one poll, and workers that are only busy.
    pub(crate) stuck_workers: StuckWorkers,
    pub(crate) busy_workers: StuckWorkers,
}

/// The setting for contained polls, and their number.
#[derive(Debug)]
pub(crate) struct Containment {
    /// Whether to contain the polls of all watches.
    pub(crate) everywhere: bool,
    /// The largest number of contained polls at once.
    pub(crate) limit: usize,
    /// The number of polls that are contained now.
    pub(crate) now: AtomicUsize,
}

impl WatchdogInner {
    /// Returns the number of polls that are contained now, and its limit.
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
    /// Returns the watch of that name. Registers it if it is new.
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
                "the limit of watches is reached: this name and all later ones share the watch {OTHER:?}; use fewer names"
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
            in_use: BudgetToken::new(budget_nanos),
            ticked: is_ticked.then(|| BudgetToken::ticked(budget_nanos)),
            counters,
            watchdog,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Returns the name of the watch.
    pub fn name(&self) -> &str {
        &self.inner.counters.name
    }

    /// Returns the time after which a poll is slow.
    pub fn budget(&self) -> Duration {
        self.inner.budget
    }

    /// Returns the same watch, with the same statistics, and another budget.
    ///
    /// A poll is slow if it runs *longer* than its budget. With `Duration::ZERO`, each poll that takes measurable time
    /// is slow, which is useful in tests. A destructor is slow from 10 µs on even then, or from 10 ms on if the future
    /// was done. With `Duration::MAX`, or any budget beyond `u64::MAX` nanoseconds (584 years), no poll is slow.
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

    /// Returns the same watch, and contains its polls that are expected to be slow.
    ///
    /// Before such a poll, the worker hands its other tasks to another thread ([`tokio::task::block_in_place`]). So
    /// those tasks continue.
    ///
    /// The watch estimates how far its next poll will exceed the budget. It hands the tasks over if that is more than
    /// the handover costs, which it measures too. So containment begins with the poll after the first slow one, and
    /// ends some dozens of polls after the last. A watch without slow polls pays one comparison.
    ///
    /// The watchdog reports these slow polls as [`SectionKind::Contained`], and counts all contained polls
    /// (`shotclock_contained_polls_total`). A contained poll still holds up its own task, and takes a thread.
    ///
    /// [`WatchdogBuilder::contain`](crate::WatchdogBuilder::contain) contains the polls of all watches.
    /// [`WatchdogBuilder::max_contained`](crate::WatchdogBuilder::max_contained) limits their number.
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
    /// Only a worker of a multi-thread runtime has tasks to hand over. Elsewhere polls are not contained: on a
    /// current-thread runtime, in a `LocalSet`, in the future given to `block_on`, on the blocking pool, and outside a
    /// runtime. [`Watchdog::capabilities`](crate::Watchdog::capabilities) says whether containment is available.
    ///
    /// Inside `block_in_place` tokio's cooperative budget does not apply, so a poll that only this budget would have
    /// ended continues. A contained poll also continues while its runtime shuts down. If it panics because of that,
    /// its task is dropped as an ordinary one would be, but the panic hook has printed the message.
    #[must_use]
    pub fn contained(&self) -> Self {
        let inner = &self.inner;
        let (counters, watchdog) = (Arc::clone(&inner.counters), Arc::clone(&inner.watchdog));
        Self::bind(counters, watchdog, inner.budget, true)
    }

    /// Estimates by how many nanoseconds the next poll will exceed its budget. `None` if the watch contains no polls.
    #[inline]
    pub(crate) fn expected_overrun(&self) -> Option<u64> {
        let inner = &self.inner;
        inner
            .contained
            .then(|| inner.counters.expected_overrun.nanos())
    }

    /// Reads what the watch has counted so far.
    ///
    /// Reads the counters of each thread that ever polled this watch. No thread waits for that.
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

    /// Returns whether its polls are timed by the coarse clock.
    #[inline]
    pub(crate) fn is_ticked(&self) -> bool {
        self.inner.ticked.is_some()
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

//! Builds a watchdog: the only file that connects all parts.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use crate::clock::{Clock, nanos_of};
use crate::dispatch::{
    Dispatcher, History, HistoryReporter, ReporterThread, Reporters, TracingReporter,
};
use crate::error::Error;
use crate::offload;
use crate::publish;
use crate::report::{Reporter, SlowPoll, StuckWorker, WorkerReporter};
use crate::sentinel;
use crate::slot;
use crate::sys::{self, CAPTURE_SIGNAL};
use crate::watch::{
    Action, Containment, EscalationStep, Policy, Registry, SlowPollSink, Stacks, StuckWorkers,
    Timing, WatchdogInner,
};

use super::Watchdog;
use super::escalation::{Escalation, EscalationKind};

impl Watchdog {
    /// Returns a builder with the default settings.
    pub fn builder() -> WatchdogBuilder {
        WatchdogBuilder::new()
    }
}

/// Reports that may wait to be summed as culprits. Looking up names takes long, so they come in bursts.
const HISTORY_QUEUE: usize = 1_024;

/// The largest queue. It is allocated at once, so a larger one is most likely a mistake.
const MAX_QUEUE: usize = 1 << 20;

/// Builds a [`Watchdog`]. [`Watchdog::builder`] makes it.
#[must_use = "a builder does nothing before `build`"]
pub struct WatchdogBuilder {
    budget: Duration,
    timing: Timing,
    guard_budget: Duration,
    max_watches: usize,
    reports_per_second: u32,
    report_queue: usize,
    tracing: bool,
    stderr_without_subscriber: bool,
    reporters: Vec<Box<dyn Reporter>>,
    stacks: Stacks,
    stack_signal: i32,
    without_paths: bool,
    escalation: Vec<(Duration, Escalation)>,
    contain: bool,
    max_contained: usize,
    #[cfg(feature = "metrics")]
    buckets_as_counters: bool,
    clock: Option<Clock>,
}

impl WatchdogBuilder {
    fn new() -> Self {
        Self {
            budget: Duration::from_millis(10),
            timing: Timing::default(),
            guard_budget: Duration::from_millis(100),
            max_watches: 1_000,
            reports_per_second: 5,
            report_queue: 256,
            tracing: true,
            stderr_without_subscriber: false,
            reporters: Vec::new(),
            stacks: Stacks::Auto,
            stack_signal: CAPTURE_SIGNAL,
            without_paths: false,
            escalation: Vec::new(),
            contain: false,
            max_contained: 64,
            #[cfg(feature = "metrics")]
            buckets_as_counters: false,
            clock: None,
        }
    }

    /// Sets the longest time that a poll may take. Default: 10 ms.
    ///
    /// A single watch may have another one ([`Watch::with_budget`](crate::Watch::with_budget)). [`build`](Self::build)
    /// refuses zero, which would report each poll of the program. With `u64::MAX` nanoseconds or more, no poll is slow.
    pub fn budget(mut self, budget: Duration) -> Self {
        self.budget = budget;
        self
    }

    /// Sets the longest time that a worker of a guarded runtime may be in one poll. Default: 100 ms. Minimum: 10 ms.
    ///
    /// The sentinel scans a busy worker ten times within it, and a scan takes tens of microseconds. A busy worker without
    /// proof that it is in one poll is reported after ten of these budgets. See [`Watchdog::guard`].
    pub fn guard_budget(mut self, budget: Duration) -> Self {
        self.guard_budget = budget;
        self
    }

    /// Selects how polls are timed. Default: [`Timing::Exact`].
    pub fn timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// Sets the number of names that have watches of their own. Default: 1,000. Minimum: 1.
    pub fn max_watches(mut self, limit: usize) -> Self {
        self.max_watches = limit;
        self
    }

    /// Sets the number of slow polls of one watch that are reported in a second. Default: 5.
    ///
    /// Seconds are whole seconds of the watchdog's clock. The crate counts further polls, and the next report has their
    /// number ([`SlowPoll::suppressed`]). A suppressed poll that still runs is tried again at doubling times. A poll that
    /// lasts ten budgets, and at least 10 ms, is never suppressed. With 0, the watchdog reports no slow poll and counts
    /// all.
    pub fn reports_per_second(mut self, limit: u32) -> Self {
        self.reports_per_second = limit;
        self
    }

    /// Sets the number of reports that may wait for one reporter. Default: 256. Range: 1 to 1,048,576.
    ///
    /// The crate drops and counts reports that find the queue full.
    pub fn report_queue(mut self, capacity: usize) -> Self {
        self.report_queue = capacity;
        self
    }

    /// Adds a closure that is called for each report of a poll, on a thread of its own.
    ///
    /// # Examples
    ///
    /// ```
    /// use shotclock::{SlowPoll, WatchExt as _, Watchdog};
    /// use std::sync::mpsc;
    /// use std::time::Duration;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (tx, rx) = mpsc::channel();
    /// let watchdog = Watchdog::builder()
    ///     .on_slow_poll(move |slow: &SlowPoll| {
    ///         let _ = tx.send(slow.watch.to_string());
    ///     })
    ///     .build()?;
    ///
    /// async { std::thread::sleep(Duration::from_millis(200)) }
    ///     .watched(&watchdog.watch("checkout"))
    ///     .await;
    ///
    /// assert_eq!(rx.recv()?, "checkout");
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_slow_poll<F>(self, reporter: F) -> Self
    where
        F: Fn(&SlowPoll) + Send + 'static,
    {
        self.reporter(reporter)
    }

    /// Adds a closure that is called for each report of a worker of a guarded runtime ([`Watchdog::guard`]).
    ///
    /// The closure runs on a thread of its own.
    ///
    /// # Examples
    ///
    /// ```
    /// use shotclock::{StuckWorker, Watchdog};
    ///
    /// let watchdog = Watchdog::builder()
    ///     .on_stuck_worker(|stuck: &StuckWorker| eprintln!("{stuck}"))
    ///     .build()?;
    /// # drop(watchdog);
    /// # Ok::<(), shotclock::Error>(())
    /// ```
    pub fn on_stuck_worker<F>(self, reporter: F) -> Self
    where
        F: Fn(&StuckWorker) + Send + 'static,
    {
        self.reporter(WorkerReporter(reporter))
    }

    /// Adds a reporter. Each has a thread of its own.
    pub fn reporter(mut self, reporter: impl Reporter) -> Self {
        self.reporters.push(Box::new(reporter));
        self
    }

    /// Removes the default reporter, which logs each report as a `tracing` event at WARN.
    pub fn without_tracing(mut self) -> Self {
        self.tracing = false;
        self
    }

    /// Makes the default reporter write to stderr while the process has no subscriber.
    pub(super) fn stderr_without_subscriber(mut self) -> Self {
        self.stderr_without_subscriber = true;
        self
    }

    /// Selects how the stacks of stalled threads are taken. Default: [`Stacks::Auto`].
    pub fn stacks(mut self, stacks: Stacks) -> Self {
        self.stacks = stacks;
        self
    }

    /// Sets the number of the capture signal, by which stacks are taken. Default: `SIGURG`.
    ///
    /// The system ignores `SIGURG` by default, so a late signal does no harm. A process has one handler: the first
    /// watchdog with stacks installs it, for its own signal. If the signal has another handler, now or later, no stacks
    /// are taken. The same holds for a number that is no signal, and for the signal of a fault, as `SIGSEGV`.
    /// [`Watchdog::capabilities`] gives the reason.
    pub fn stack_signal(mut self, signal: i32) -> Self {
        self.stack_signal = signal;
        self
    }

    /// Leaves the path of a file, pipe or socket out of the reports.
    ///
    /// A path may be confidential. The hint still depends on the kind of resource.
    ///
    /// # Examples
    ///
    /// ```
    /// use shotclock::{Stacks, Watchdog};
    ///
    /// // Reports have no names from the program but those of watches, tasks and threads.
    /// let watchdog = Watchdog::builder()
    ///     .stacks(Stacks::Never)
    ///     .without_paths()
    ///     .build()?;
    /// # drop(watchdog);
    /// # Ok::<(), shotclock::Error>(())
    /// ```
    pub fn without_paths(mut self) -> Self {
        self.without_paths = true;
        self
    }

    /// Adds an action for polls that have stalled for `after`. By default there are none.
    ///
    /// The sentinel takes each step once for each stall, in the order of `after`, whatever the rate limit says. It counts
    /// only time that is charged to the code, so not while the thread is starved or the process suspended.
    ///
    /// # Examples
    ///
    /// ```
    /// use shotclock::{Escalation, Watchdog};
    /// use std::time::Duration;
    ///
    /// let watchdog = Watchdog::builder()
    ///     .escalate(Duration::from_secs(1), Escalation::Stacks)
    ///     .escalate(Duration::from_secs(5), Escalation::call(|slow| eprintln!("{slow}")))
    ///     .escalate(Duration::from_secs(60), Escalation::Abort)
    ///     .build()?;
    /// # drop(watchdog);
    /// # Ok::<(), shotclock::Error>(())
    /// ```
    pub fn escalate(mut self, after: Duration, escalation: Escalation) -> Self {
        self.escalation.push((after, escalation));
        self
    }

    /// Contains the polls of all watches that are expected to exceed their budget.
    ///
    /// [`Watch::contained`](crate::Watch::contained) does it for one watch.
    pub fn contain(mut self) -> Self {
        self.contain = true;
        self
    }

    /// Sets the number of polls that are contained at once. Default: 64.
    ///
    /// Each contained poll takes a thread of the runtime's blocking pool. Beyond the limit, polls run plainly.
    pub fn max_contained(mut self, limit: usize) -> Self {
        self.max_contained = limit;
        self
    }

    /// Publishes the distribution of all polls through the `metrics` facade, for an exporter that this crate cannot
    /// extend.
    ///
    /// The facade's histogram keeps 24 bytes for each poll until the next scrape (metrics-exporter-prometheus 0.18). So
    /// this publishes counters: `shotclock_poll_duration_seconds_bucket{watch,le}` and `…_count{watch}`, which PromQL reads
    /// like a histogram, and `shotclock_poll_busy_microseconds_total{watch}`. The setting holds for the whole process.
    /// `shotclock::prometheus::Exporter` then renders none of the three, so that no series comes twice.
    #[cfg(feature = "metrics")]
    pub fn buckets_as_counters(mut self) -> Self {
        self.buckets_as_counters = true;
        self
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Builds the watchdog and starts its threads.
    ///
    /// Each watchdog has one thread for each reporter, one for each [`Escalation::call`], and one that sums culprits.
    /// The first call in a process also starts the sentinel, the ticker, the loader of unwind tables and the thread that
    /// publishes metrics. These run as long as the process.
    ///
    /// The first call also measures the clock against the system's. This takes about a millisecond, and at most 200.
    /// So build the watchdog before the runtime is busy.
    ///
    /// # Errors
    ///
    /// Fails if a setting is out of range ([`Error::is_invalid_setting`]): a budget, a limit of watches or a queue
    /// capacity of zero, a queue capacity above its limit, or a [`guard_budget`](Self::guard_budget) below 10 ms. Fails if
    /// the system refuses a thread, and in the child of a fork whose parent had built a watchdog
    /// ([`Error::is_thread_refused`]).
    pub fn build(self) -> Result<Watchdog, Error> {
        self.check()?;
        sys::notice_forks(slot::hold, slot::release);
        if sys::is_forked() {
            return Err(Error::forked());
        }
        publish::start()?;
        offload::register_cpu_lane();
        let clock = self.clock.clone().unwrap_or_else(Clock::new);
        sentinel::start(&clock, self.stacks, self.stack_signal)?;
        let registry = Registry::new(self.max_watches);
        let containment = Containment {
            everywhere: self.contain,
            limit: self.max_contained,
            now: AtomicUsize::new(0),
        };
        let (timing, budget) = (self.timing, self.budget);
        let guard_budget_nanos = nanos_of(self.guard_budget);
        let reports_per_second = self.reports_per_second;
        #[cfg(feature = "metrics")]
        let buckets_as_counters = self.buckets_as_counters;
        let history = Arc::new(History::default());
        let (reporters, policy) = self.start_reporters(&history)?;
        let dispatcher = Dispatcher::new(
            reporters,
            reports_per_second,
            policy,
            Arc::clone(&registry),
            clock.clone(),
        );
        publish::register(&registry);
        #[cfg(feature = "metrics")]
        if buckets_as_counters {
            publish::publish_buckets_as_counters();
        }
        let inner = Arc::new(WatchdogInner {
            clock,
            timing,
            budget,
            registry,
            sink: Arc::clone(&dispatcher) as Arc<dyn SlowPollSink>,
            containment,
            stuck_workers: StuckWorkers::default(),
            busy_workers: StuckWorkers::default(),
        });
        Ok(Watchdog {
            inner,
            dispatcher,
            history,
            guard_budget_nanos,
        })
    }

    fn check(&self) -> Result<(), Error> {
        let at_least_one = "must be at least 1";
        if self.budget.is_zero() {
            return Err(Error::setting(
                "budget",
                "is zero, so each poll would be slow: set a longer one, or use Watch::with_budget for one watch",
            ));
        }
        if self.guard_budget < Duration::from_millis(10) {
            return Err(Error::setting("guard_budget", "must be at least 10 ms"));
        }
        if self.max_watches == 0 {
            return Err(Error::setting("max_watches", at_least_one));
        }
        if self.report_queue == 0 {
            return Err(Error::setting("report_queue", at_least_one));
        }
        if self.report_queue > MAX_QUEUE {
            return Err(Error::setting("report_queue", "must be at most 1,048,576"));
        }
        Ok(())
    }

    /// Starts the threads of the reporters, and resolves the escalation steps to them.
    fn start_reporters(self, history: &Arc<History>) -> Result<(Reporters, Policy), Error> {
        let capacity = self.report_queue;
        let history = Box::new(HistoryReporter(Arc::clone(history)));
        let history = ReporterThread::start(history, "shotclock-hist", HISTORY_QUEUE)?;
        let tracing = || Box::new(TracingReporter::new(self.stderr_without_subscriber)) as _;
        let tracing: Option<Box<dyn Reporter>> = self.tracing.then(tracing);
        let reporters = tracing.into_iter().chain(self.reporters);
        let start = |(number, reporter)| {
            // Linux shows 15 bytes of a thread's name.
            ReporterThread::start(reporter, &format!("shotclock-rep-{number}"), capacity)
        };
        let all = reporters.enumerate().map(start).collect::<Result<_, _>>()?;
        let (mut escalation, mut steps) = (Vec::new(), Vec::new());
        for (after, Escalation { kind }) in self.escalation {
            let action = match kind {
                EscalationKind::Stacks => Action::Stacks,
                EscalationKind::Abort => Action::Abort,
                EscalationKind::Call(function) => {
                    let name = format!("shotclock-esc-{}", escalation.len());
                    escalation.push(ReporterThread::start(function, &name, capacity)?);
                    Action::Call(escalation.len() - 1)
                }
            };
            let after_nanos = nanos_of(after);
            // In the order of `after`, and of the calls among equal ones.
            let before = |step: &EscalationStep| step.after_nanos <= after_nanos;
            let at = steps.partition_point(before);
            let step = EscalationStep {
                after_nanos,
                action,
            };
            steps.insert(at, step);
        }
        let policy = Policy {
            stacks: self.stacks,
            without_paths: self.without_paths,
            steps,
        };
        let reporters = Reporters {
            all,
            escalation,
            history,
        };
        Ok((reporters, policy))
    }
}

impl fmt::Debug for WatchdogBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchdogBuilder")
            .field("budget", &self.budget)
            .field("max_watches", &self.max_watches)
            .field("reports_per_second", &self.reports_per_second)
            .field("report_queue", &self.report_queue)
            .field("tracing", &self.tracing)
            .field("reporters", &self.reporters.len())
            .finish_non_exhaustive()
    }
}

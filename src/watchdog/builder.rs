//! The set-up of a watchdog: the only file that wires everything.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use crate::clock::{Clock, nanos_of};
use crate::error::Error;
use crate::offload;
use crate::publish;
use crate::report::{
    Archive, Archivist, Desk, Limits, OfWorkers, Outlet, Reporter, SlowPoll, StuckWorker,
    TracingReporter,
};
use crate::sentinel;
use crate::slot;
use crate::sys::{self, CAPTURE_SIGNAL};
use crate::watch::{
    Containment, Measure, OnSlow, Orders, Registry, Stacks, Step, StuckWorkers, Timing,
    WatchdogInner,
};

use super::Watchdog;
use super::escalation::Escalation;

impl Watchdog {
    /// Starts the set-up of a watchdog.
    pub fn builder() -> Builder {
        Builder::new()
    }
}

/// How many reports may wait to be added up to culprits.
const ARCHIVE_QUEUE: usize = 1_024;

/// The queues are allocated whole.
const MAX_QUEUE: usize = 1 << 20;

/// The set-up of a [`Watchdog`]. Made by [`Watchdog::builder`].
#[must_use = "a builder does nothing before `build`"]
pub struct Builder {
    budget: Duration,
    timing: Timing,
    guard_budget: Duration,
    max_watches: usize,
    reports_per_second: u32,
    report_queue: usize,
    tracing: bool,
    or_stderr: bool,
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

impl Builder {
    fn new() -> Self {
        Self {
            budget: Duration::from_millis(10),
            timing: Timing::default(),
            guard_budget: Duration::from_millis(100),
            max_watches: 1_000,
            reports_per_second: 5,
            report_queue: 256,
            tracing: true,
            or_stderr: false,
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

    /// How long a poll may run before it is slow. 10 ms unless it is set; a single watch may differ
    /// ([`Watch::with_budget`](crate::Watch::with_budget)).
    ///
    /// Zero is refused by [`build`](Self::build): as a default it would report every poll of the
    /// program. Beyond `u64::MAX` nanoseconds no poll is ever slow.
    pub fn budget(mut self, budget: Duration) -> Self {
        self.budget = budget;
        self
    }

    /// Sets for how long a worker of a guarded runtime may be in one poll before it is stuck
    /// ([`Watchdog::guard`]). 100 ms unless it is set; at least 10 ms, because the sentinel looks ten times
    /// within it, and a look costs tens of microseconds. A worker that is busy without a proof that it is one
    /// poll is reported after ten times as long.
    pub fn guard_budget(mut self, budget: Duration) -> Self {
        self.guard_budget = budget;
        self
    }

    /// How polls are timed. [`Timing::Exact`] unless it is set.
    pub fn timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// How many names may have a watch of their own. 1,000 unless it is set; at least 1.
    pub fn max_watches(mut self, limit: usize) -> Self {
        self.max_watches = limit;
        self
    }

    /// Sets how many slow polls of one watch are reported in a second. 5 unless it is set.
    ///
    /// Seconds are whole seconds of the watchdog's clock. Further polls are counted, and the next report says
    /// how many there were ([`SlowPoll::suppressed`]). The limit is for noise: a poll that still runs asks again
    /// at doubling times, and one that lasts ten budgets (and at least 10 ms) is reported whatever the limit
    /// says. With 0 the watchdog reports no slow poll, and counts all.
    pub fn reports_per_second(mut self, limit: u32) -> Self {
        self.reports_per_second = limit;
        self
    }

    /// How many reports may wait for one reporter before further ones are dropped (and counted).
    /// 256 unless it is set; at least 1, at most 1,048,576.
    pub fn report_queue(mut self, capacity: usize) -> Self {
        self.report_queue = capacity;
        self
    }

    /// Calls a closure for every report, on a thread of its own. Any number of them.
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

    /// Calls a closure for every report of a worker of a guarded runtime
    /// ([`Watchdog::guard`]), on a thread of its own. Any number of them.
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
        self.reporter(OfWorkers(reporter))
    }

    /// Adds a reporter. Any number of them.
    pub fn reporter(mut self, reporter: impl Reporter) -> Self {
        self.reporters.push(Box::new(reporter));
        self
    }

    /// Takes the default reporter away, which logs each slow poll as a `tracing` event at WARN.
    pub fn without_tracing(mut self) -> Self {
        self.tracing = false;
        self
    }

    /// Has the default reporter write to stderr where the process has no subscriber.
    pub(super) fn or_stderr(mut self) -> Self {
        self.or_stderr = true;
        self
    }

    /// How the stacks of stuck threads are taken. [`Stacks::Auto`] unless it is set.
    pub fn stacks(mut self, stacks: Stacks) -> Self {
        self.stacks = stacks;
        self
    }

    /// The number of the signal by which stacks are taken. `SIGURG` unless it is set, whose default
    /// is to be ignored, so that a late one does no harm.
    ///
    /// There is one handler in a process: it is installed by the first watchdog that is built with
    /// anything but [`Stacks::Never`], with the signal of that one. If the signal has another handler
    /// already, or gets one later, no stacks are taken, and
    /// [`Watchdog::capabilities`] says so; as it does of a number that is no signal, and of a signal
    /// by which faults are told, as `SIGSEGV`.
    pub fn stack_signal(mut self, signal: i32) -> Self {
        self.stack_signal = signal;
        self
    }

    /// Leaves out of the reports which file, pipe or socket a stuck thread waits for: a path may hold
    /// what nobody but the service is to know. What kind of thing it is, is still said.
    ///
    /// # Examples
    ///
    /// ```
    /// use shotclock::{Stacks, Watchdog};
    ///
    /// // Reports hold no names of the program's but those of watches, tasks and threads.
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

    /// Does something about a poll that has been stuck for so long. Any number of steps; the youngest
    /// is taken first.
    ///
    /// A step is taken once for each stall, whatever the limits on reports say, and only while the
    /// stall is the code's doing: not while its thread is starved or the process suspended. Nothing
    /// of this is on unless it is asked for.
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

    /// Contains the polls of all watches that are expected to overrun, as [`Watch::contained`](crate::Watch::contained) does it
    /// for one.
    pub fn contain(mut self) -> Self {
        self.contain = true;
        self
    }

    /// How many polls are contained at once; beyond it they are plain ones. 64 unless it is set. Each
    /// takes a thread of the runtime's blocking pool.
    pub fn max_contained(mut self, limit: usize) -> Self {
        self.max_contained = limit;
        self
    }

    /// Publishes the distribution of all polls through the `metrics` facade, for an exporter whose
    /// text cannot be appended to.
    ///
    /// As counters, because the facade's histogram keeps 24 bytes for every poll until the next
    /// scrape: `shotclock_poll_duration_seconds_bucket{watch,le}` and `…_count{watch}`, which PromQL
    /// reads as it reads a histogram, and `shotclock_poll_busy_microseconds_total{watch}`. It holds
    /// for the whole process, and `shotclock::prometheus::Exporter` then renders
    /// none of the three, so that nothing comes twice.
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

    /// Builds the watchdog and starts its threads: one for each reporter, and, once in a process,
    /// one that publishes metrics.
    ///
    /// The first call in a process measures the clock against the system's, which takes about a
    /// millisecond where they agree at once, and 200 at most: do it before the runtime is busy.
    ///
    /// # Errors
    ///
    /// If the budget, the limit of watches or the capacity of the report queue is zero, if that
    /// capacity is above its limit, or if a thread cannot be started; so also in the child of a fork, if
    /// the parent had built a watchdog.
    pub fn build(self) -> Result<Watchdog, Error> {
        self.check()?;
        sys::notice_forks(slot::hold, slot::release);
        if sys::is_forked() {
            return Err(Error::forked());
        }
        publish::start()?;
        offload::enroll_cpu_lane();
        #[cfg(feature = "metrics")]
        let buckets_as_counters = self.buckets_as_counters;
        let registry = Registry::new(self.max_watches);
        let limits = Limits {
            per_second: self.reports_per_second,
        };
        let guard_budget = nanos_of(self.guard_budget);
        let timing = self.timing;
        let (contain, max_contained) = (self.contain, self.max_contained);
        let budget = self.budget;
        let clock = self.clock.clone().unwrap_or_else(Clock::new);
        sentinel::start(&clock, self.stacks, self.stack_signal)?;
        let (stacks, without_paths) = (self.stacks, self.without_paths);
        let archive = Arc::new(Archive::default());
        let archivist = Box::new(Archivist(Arc::clone(&archive)));
        let archivist = Outlet::open(archivist, "shotclock-arch", ARCHIVE_QUEUE)?;
        let Threads {
            outlets,
            calls,
            steps,
        } = self.start_threads()?;
        let orders = Orders {
            stacks,
            without_paths,
            steps,
        };
        let desk = Desk::new(
            outlets,
            calls,
            archivist,
            limits,
            orders,
            Arc::clone(&registry),
            clock.clone(),
        );
        publish::enroll(&registry);
        #[cfg(feature = "metrics")]
        if buckets_as_counters {
            publish::publish_buckets_as_counters();
        }
        let inner = Arc::new(WatchdogInner {
            clock,
            timing,
            budget,
            registry,
            slow: Arc::clone(&desk) as Arc<dyn OnSlow>,
            containment: Containment {
                everywhere: contain,
                limit: max_contained,
                now: AtomicUsize::new(0),
            },
            stuck_workers: StuckWorkers::default(),
            busy_workers: StuckWorkers::default(),
        });
        Ok(Watchdog {
            inner,
            desk,
            archive,
            guard_budget,
        })
    }

    fn check(&self) -> Result<(), Error> {
        let at_least_one = "must be at least 1";
        if self.budget.is_zero() {
            return Err(Error::setting(
                "budget",
                "is zero, so that every poll would be slow; Watch::with_budget allows that for one watch",
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

    /// Starts the threads of the reporters, and of what an escalation calls.
    fn start_threads(self) -> Result<Threads, Error> {
        let tracing = || Box::new(TracingReporter::new(self.or_stderr)) as Box<dyn Reporter>;
        let tracing = self.tracing.then(tracing);
        let reporters = tracing.into_iter().chain(self.reporters);
        let open = |(number, reporter)| {
            // Linux shows 15 bytes of a thread's name.
            let name = format!("shotclock-rep-{number}");
            Outlet::open(reporter, &name, self.report_queue)
        };
        let outlets = reporters.enumerate().map(open).collect::<Result<_, _>>()?;
        let (mut calls, mut steps) = (Vec::new(), Vec::new());
        for (after, escalation) in self.escalation {
            let measure = match escalation {
                Escalation::Stacks => Measure::Stacks,
                Escalation::Abort => Measure::Abort,
                Escalation::Call(function) => {
                    let name = format!("shotclock-esc-{}", calls.len());
                    calls.push(Outlet::open(function, &name, self.report_queue)?);
                    Measure::Call(calls.len() - 1)
                }
            };
            let after = nanos_of(after);
            steps.push(Step { after, measure });
        }
        steps.sort_by_key(|step| step.after);
        Ok(Threads {
            outlets,
            calls,
            steps,
        })
    }
}

/// The threads of a watchdog, and the steps of its escalation, which name some of them.
struct Threads {
    outlets: Vec<Outlet>,
    calls: Vec<Outlet>,
    steps: Vec<Step>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("budget", &self.budget)
            .field("max_watches", &self.max_watches)
            .field("reports_per_second", &self.reports_per_second)
            .field("report_queue", &self.report_queue)
            .field("tracing", &self.tracing)
            .field("reporters", &self.reporters.len())
            .finish_non_exhaustive()
    }
}

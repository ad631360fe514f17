//! Guards a whole runtime, without wrapping any future.

use std::fmt;
use std::sync::Arc;

use tokio::runtime::{self, Handle};

use super::Watchdog;
use crate::error::Error;
use crate::prober;
use crate::runtime::{Guarded, StuckWorkerSink};
use crate::sync::Lock;
use crate::sys;

impl Watchdog {
    /// Guards a runtime: the sentinel scans each worker, and the watchdog measures the runtime's lag.
    ///
    /// The guard ends when it is dropped, or when the runtime ends.
    ///
    /// The sentinel reports a worker that is proved to be in one poll for longer than the guard's budget
    /// ([`WatchdogBuilder::guard_budget`](super::WatchdogBuilder::guard_budget)). The report
    /// ([`StuckWorker`](crate::StuckWorker)) comes while the worker is stuck, with its stack. Each report of a slow poll in a guarded runtime has the state of the runtime
    /// ([`RuntimeSnapshot`](crate::report::RuntimeSnapshot)).
    ///
    /// The metrics are the gauges `shotclock_stuck_workers{runtime}` and `shotclock_busy_workers{runtime}`, the counter
    /// `shotclock_worker_stalls_total{runtime}` and the histogram `shotclock_runtime_lag_seconds{runtime}`. Guards of one
    /// name share them. Past 1,000 names, further ones are called `other`.
    ///
    /// # Examples
    ///
    /// ```
    /// use shotclock::Watchdog;
    /// use tokio::runtime::Handle;
    ///
    /// #[tokio::main]
    /// async fn main() -> Result<(), shotclock::Error> {
    ///     let watchdog = Watchdog::builder().build()?;
    ///     let _guard = watchdog.guard("main", &Handle::current());
    ///     // … serve …
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Proof that a worker is stuck
    ///
    /// tokio counts how often each worker parks and unparks, and how long it was busy. Unchanged counters show that the
    /// worker has not returned to its driver, but not in how many polls. So the sentinel observes the worker's thread ten
    /// times within the budget. Each of these proves that the worker is still in the same poll:
    ///
    /// - The thread slept in one system call, and did not run between two observations.
    /// - The outermost watched poll in flight is the same.
    /// - A breakpoint behind tokio's call of the poll was not hit. A debug register of the processor counts the hits
    ///   exactly, if the system permits it ([`Capabilities::breakpoints`](crate::Capabilities::breakpoints)).
    ///
    /// The sentinel reports a worker without such a proof after ten budgets, as
    /// [`StuckKind::Busy`](crate::report::StuckKind::Busy), in other words. It does not report a worker that is seen to go
    /// on: it ran a probe, its task changed, watched polls ended, or the breakpoint was hit.
    ///
    /// Ten times a second the watchdog sends a probe task into the runtime. It measures the lag, and tells which thread
    /// runs which worker. At first, and while a thread is unknown, the watchdog sends as many probes as there are workers.
    /// Each holds its worker until all have met, for at most 5 ms.
    ///
    /// # Non-guarantees
    ///
    /// - A worker whose thread is unknown is reported as busy, without cause or stack. After `block_in_place` another
    ///   thread runs the worker, which the next probe there reveals.
    /// - The sentinel reports a worker that computes in one poll within 1.5 budgets only where breakpoints are permitted.
    ///   That needs a process without a seccomp filter. The same holds for a worker that sleeps many times in one poll.
    /// - A breakpoint costs the thread about a microsecond a poll while the worker may be stuck: after a tenth of the
    ///   budget without a change of its counters.
    /// - A current-thread runtime runs only while a thread is in `block_on`, which the stack shows. Without stacks
    ///   ([`Stacks::Never`](crate::Stacks::Never)) or symbols, its worker is not reported. Its lag is measured even while
    ///   no thread is in `block_on`.
    /// - A worker that waits for a lock is reported, even if the lock's holder is only not scheduled.
    /// - Some systems do not count the time on the run queue. There, a report on a busy host may name a worker that is only
    ///   not scheduled.
    ///
    /// If the system refuses the thread that sends probes, no lag is measured and the threads of workers stay unknown.
    /// The crate logs an error then. Under a mocked clock (`WatchdogBuilder::mock_clock`) nothing is guarded.
    #[must_use = "a runtime is guarded as long as the guard lives"]
    pub fn guard(&self, name: &str, handle: &Handle) -> Guard {
        let guarded = self.guarded(name);
        guarded.attach(handle);
        if let (true, Some(workers)) = (is_called_in(handle), guarded.workers()) {
            workers.bind_current_thread();
        }
        Guard::begin(guarded)
    }

    /// Guards the runtime that `builder` will build, from its first thread on.
    ///
    /// This sets the builder's `on_thread_park`, which reveals a worker's thread when it first parks. The builder keeps
    /// one closure of each kind. If you need your own, call [`GuardHooks::on_thread_park`] in it, and set it afterwards.
    ///
    /// With `--cfg tokio_unstable` this also sets `on_before_task_poll` and `on_after_task_poll`. Then each task is watched
    /// without a wrapper, under the place where it was spawned (`src/main.rs:7`) and with the watchdog's own budget.
    ///
    /// # Examples
    ///
    /// ```
    /// use shotclock::Watchdog;
    ///
    /// let watchdog = Watchdog::builder().build()?;
    /// let mut builder = tokio::runtime::Builder::new_multi_thread();
    /// let guard = watchdog.guard_builder("main", &mut builder);
    ///
    /// // Your own hook calls the guard's.
    /// let hooks = guard.hooks();
    /// builder.on_thread_park(move || {
    ///     hooks.on_thread_park();
    ///     // …
    /// });
    /// # Ok::<(), shotclock::Error>(())
    /// ```
    #[must_use = "a runtime is guarded as long as the guard lives"]
    pub fn guard_builder(&self, name: &str, builder: &mut runtime::Builder) -> Guard {
        let guard = Guard::begin(self.guarded(name));
        let hooks = guard.hooks();
        builder.on_thread_park(move || hooks.on_thread_park());
        #[cfg(tokio_unstable)]
        {
            let (before, after) = (guard.hooks(), guard.hooks());
            builder.on_before_task_poll(move |task| before.on_before_task_poll(task));
            builder.on_after_task_poll(move |task| after.on_after_task_poll(task));
        }
        guard
    }

    fn guarded(&self, name: &str) -> Arc<Guarded> {
        let sink = Arc::clone(&self.dispatcher) as Arc<dyn StuckWorkerSink>;
        let watchdog = Arc::clone(&self.inner);
        Guarded::new(name, watchdog, sink, self.guard_budget_nanos)
    }
}

/// Returns whether the calling thread runs in the runtime. Then its worker is known from the start.
fn is_called_in(handle: &Handle) -> bool {
    Handle::try_current().is_ok_and(|current| current.id() == handle.id())
}

/// Guards the runtime of the calling task under the name `main`: the one line that a program needs.
///
/// The guard uses the watchdog of the process, [`Watchdog::global`], which has the default settings. It can watch single
/// futures too. If the program has no `tracing` subscriber, reports go to stderr.
///
/// A reporter's thread writes the reports once it has read their symbols. A program that ends soon after a worker was
/// stuck calls [`Watchdog::flush`] of [`Watchdog::global`] first.
///
/// # Examples
///
/// ```
/// #[tokio::main]
/// async fn main() {
///     let _guard = shotclock::guard();
///     // … serve …
/// }
/// ```
///
/// # Errors
///
/// Always returns a guard, so that one line is enough. Outside of a runtime, or if the system refuses a thread, the guard
/// guards nothing ([`Guard::is_active`]). The crate then logs the reason as an error, or writes it to stderr.
#[must_use = "the runtime is guarded as long as the guard lives"]
pub fn guard() -> Guard {
    let guarded = Watchdog::global().and_then(|watchdog| {
        let handle = Handle::try_current().map_err(Error::no_runtime)?;
        Ok(watchdog.guard("main", &handle))
    });
    guarded.unwrap_or_else(|error| {
        log_inactive(&error);
        Guard { guarded: None }
    })
}

impl Watchdog {
    /// Returns the watchdog of the process, which [`guard`] uses.
    ///
    /// The first call builds it, with the settings of [`Watchdog::builder`].
    ///
    /// # Examples
    ///
    /// ```
    /// let watchdog = shotclock::Watchdog::global()?;
    /// drop(watchdog.watch("checkout").enter());
    /// # Ok::<(), shotclock::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Fails if the system refuses a thread. The next call tries again.
    pub fn global() -> Result<Watchdog, Error> {
        static GLOBAL: Lock<Option<Watchdog>> = Lock::new(None);
        let mut global = GLOBAL.lock();
        if let Some(watchdog) = &*global {
            return Ok(watchdog.clone());
        }
        let watchdog = Watchdog::builder().stderr_without_subscriber().build()?;
        Ok(global.insert(watchdog).clone())
    }
}

fn log_inactive(error: &Error) {
    let error = error.with_source();
    match tracing::dispatcher::has_been_set() {
        true => tracing::error!(target: "shotclock", %error, "nothing is guarded"),
        false => eprintln!("shotclock: nothing is guarded: {error}"),
    }
}

/// Guards a runtime until it is dropped.
///
/// [`Watchdog::guard`], [`Watchdog::guard_builder`] and [`guard`] make it.
pub struct Guard {
    guarded: Option<Arc<Guarded>>,
}

impl Guard {
    /// Registers the runtime, unless time is mocked: a mocked clock says nothing of the machine's threads. In the child of
    /// a fork there is no sentinel.
    fn begin(guarded: Arc<Guarded>) -> Self {
        if !guarded.clock().is_real() || sys::is_forked() {
            return Self { guarded: None };
        }
        guarded.register();
        if let Err(error) = prober::start() {
            let error = error.with_source();
            tracing::error!(target: "shotclock", %error, "the lag of a runtime is not measured");
        }
        Self {
            guarded: Some(guarded),
        }
    }

    /// Returns whether the guard has a runtime that exists and has not ended.
    pub fn is_active(&self) -> bool {
        let guarded = self.guarded.as_ref();
        guarded.is_some_and(|guarded| guarded.is_attached())
    }

    /// Returns the functions for the runtime's hooks, for programs that set their own hooks.
    pub fn hooks(&self) -> GuardHooks {
        GuardHooks {
            guarded: self.guarded.clone(),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(guarded) = &self.guarded {
            guarded.unregister();
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.guarded.as_ref().map(|guarded| &guarded.name);
        f.debug_struct("Guard")
            .field("runtime", &name)
            .field("is_active", &self.is_active())
            .finish()
    }
}

/// Holds the functions for the hooks of a guarded runtime. They have no effect once the guard is dropped.
///
/// [`Guard::hooks`] makes it.
#[derive(Clone, Default)]
pub struct GuardHooks {
    /// It holds the runtime's handle, and the runtime holds these hooks. The end of the guard breaks this cycle.
    pub(super) guarded: Option<Arc<Guarded>>,
}

impl GuardHooks {
    /// Tells the guard which thread runs the calling worker. Call it from the builder's `on_thread_park`.
    ///
    /// It takes some tens of nanoseconds.
    pub fn on_thread_park(&self) {
        let Some(guarded) = self.guarded.as_ref().filter(|guarded| !guarded.has_ended()) else {
            return;
        };
        if !guarded.is_attached()
            && let Ok(handle) = Handle::try_current()
        {
            guarded.attach(&handle);
            prober::wake();
        }
        if let Some(workers) = guarded.workers() {
            workers.bind_current_thread();
        }
    }
}

impl fmt::Debug for GuardHooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardHooks").finish_non_exhaustive()
    }
}

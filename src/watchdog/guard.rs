//! Guarding a whole runtime: nothing in it needs to be wrapped.

use std::fmt;
use std::sync::Arc;

use tokio::runtime::{self, Handle};

use super::Watchdog;
use crate::error::Error;
use crate::prober;
use crate::runtime::{Guarded, OnStuck};
use crate::sync::Lock;
use crate::sys;

impl Watchdog {
    /// Guards a runtime: the sentinel looks at each of its workers, whatever they poll, and the watchdog measures
    /// how late the runtime is for its tasks. That ends when the guard is dropped, or the runtime.
    ///
    /// A worker that is proved to be in one poll for longer than the budget of the guard
    /// ([`Builder::guard_budget`](super::Builder::guard_budget)) is reported while it is stuck
    /// ([`StuckWorker`](crate::StuckWorker)), with the stack of its thread. While a runtime is guarded,
    /// every report of a slow poll in it says what that did to the rest ([`Impact`](crate::Impact)).
    /// The metrics are the gauges `shotclock_stuck_workers{runtime}` and `shotclock_busy_workers{runtime}`,
    /// the counter `shotclock_worker_stalls_total{runtime}` and
    /// the histogram `shotclock_runtime_lag_seconds{runtime}`; guards of one name share them, and past
    /// 1,000 names further ones are called `other`.
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
    /// # What proves that a worker is stuck
    ///
    /// Tokio counts how often each worker parks and wakes, and for how long it was busy. Counters that stand
    /// still say that the worker has not returned to its driver; they do not say in how many polls. So the
    /// sentinel compares what it saw of the worker's thread ten times within the budget:
    ///
    /// - The thread slept in one system call and had no turn on a processor between two looks.
    /// - The outermost watched poll in flight is the same.
    /// - A breakpoint behind tokio's call of the poll was not hit. It counts exactly, in a debug register of the
    ///   processor, where the system permits it
    ///   ([`Capabilities::breakpoints`](crate::Capabilities::breakpoints)).
    ///
    /// A worker of which nothing proves it is reported after ten budgets, as
    /// [`StuckKind::Busy`](crate::StuckKind::Busy), with other words; unless it is seen to go on: a task of ours
    /// was polled there, its task became another one, watched polls end, or the breakpoint was hit.
    ///
    /// Ten times a second the watchdog sends a task into the runtime, which measures the lag and tells which
    /// thread runs which worker. At the beginning, and later only while a thread is not known, it sends as many
    /// as there are workers, and each keeps its worker until all have met, for 5 ms at most.
    ///
    /// # Non-guarantees
    ///
    /// - A worker whose thread is not known yet is reported as busy, without cause or stack. After
    ///   `block_in_place` a worker has another thread, which is known again when a task of ours is polled there.
    /// - A worker that computes in one poll is named within 1.5 budgets only where breakpoints are permitted, which
    ///   needs a process without a seccomp filter. So is one that sleeps many times in one poll.
    /// - A breakpoint costs the thread about a microsecond for each poll, as long as the worker may be stuck: from
    ///   a tenth of the budget without a sign of its counters to the next.
    /// - A runtime of the current thread runs only while some thread is in `block_on`. The stack shows that:
    ///   without stacks ([`Stacks::Never`](crate::Stacks::Never)) or without symbols its worker is not reported.
    ///   Its lag is measured while no thread is in `block_on` as well.
    /// - A worker that waits for a lock is reported, also if only because the thread that has it is not run.
    /// - Where the operating system does not tell for how long a thread waited for a processor, a
    ///   worker on a busy host may be reported that is merely not run.
    ///
    /// If the thread that sends those tasks cannot be started, no lag is measured, and workers have no
    /// threads; an event at ERROR says so. Under a mocked clock (`Builder::mock_clock`) nothing is guarded.
    #[must_use = "a runtime is guarded as long as the guard lives"]
    pub fn guard(&self, name: &str, handle: &Handle) -> Guard {
        let guarded = self.guarded(name);
        guarded.attach(handle);
        if let (true, Some(workers)) = (is_called_in(handle), guarded.workers()) {
            workers.bind_current_thread();
        }
        Guard::begin(guarded)
    }

    /// Guards the runtime that will be built of `builder`, from its first thread on.
    ///
    /// It sets the builder's `on_thread_park`, by which a worker's thread is known from the first time on
    /// that it parks. The builder keeps one closure of each kind: who has one of their own calls
    /// [`GuardHooks::on_thread_park`] from it, and sets it afterwards.
    ///
    /// With `--cfg tokio_unstable` it also sets `on_before_task_poll` and `on_after_task_poll`: every
    /// task is watched then, without being wrapped, under the place where it was spawned (`src/main.rs:7`)
    /// and with the watchdog's own budget.
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
    /// // A hook of one's own: it calls the guard's.
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
        let listener = Arc::clone(&self.desk) as Arc<dyn OnStuck>;
        let watchdog = Arc::clone(&self.inner);
        Guarded::new(name, watchdog, listener, self.guard_budget)
    }
}

/// Whether the calling thread is a worker of the runtime: then it is known from the beginning on.
fn is_called_in(handle: &Handle) -> bool {
    Handle::try_current().is_ok_and(|current| current.id() == handle.id())
}

/// Guards the runtime of the calling task, under the name `main`, with a watchdog of its own: the one
/// line that a program needs.
///
/// The watchdog has the budget and the reporters that it has if nothing is set; [`default_watchdog`]
/// gives it, to watch single futures as well. Where the program has no `tracing` subscriber, it writes
/// to stderr, so that nobody needs to set up anything to see something.
///
/// Reports are written by a thread of the watchdog's own, once their symbols are read. A program that
/// ends soon after somebody was stuck calls [`Watchdog::flush`] of the [`default_watchdog`] first.
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
/// It returns a guard in any case, so that one line is enough. Outside of a runtime, and where the
/// watchdog's threads cannot be started, that one guards nothing ([`Guard::is_active`]), and why is said
/// by an event at ERROR, or on stderr.
#[must_use = "the runtime is guarded as long as the guard lives"]
pub fn guard() -> Guard {
    let guarded = default_watchdog().and_then(|watchdog| {
        let handle = Handle::try_current().map_err(Error::no_runtime)?;
        Ok(watchdog.guard("main", &handle))
    });
    guarded.unwrap_or_else(|error| {
        say_what_is_wrong(&error);
        Guard { guarded: None }
    })
}

/// The watchdog of [`guard`]: it has the settings of [`Watchdog::builder`], and is built by the first
/// call.
///
/// # Errors
///
/// If one of its threads cannot be started. The next call tries again.
pub fn default_watchdog() -> Result<Watchdog, Error> {
    static DEFAULT: Lock<Option<Watchdog>> = Lock::new(None);
    let mut default = DEFAULT.lock();
    if let Some(watchdog) = &*default {
        return Ok(watchdog.clone());
    }
    let watchdog = Watchdog::builder().or_stderr().build()?;
    Ok(default.insert(watchdog).clone())
}

fn say_what_is_wrong(error: &Error) {
    let error = error.whole();
    match tracing::dispatcher::has_been_set() {
        true => tracing::error!(target: "shotclock", %error, "nothing is guarded"),
        false => eprintln!("shotclock: nothing is guarded: {error}"),
    }
}

/// Ends the guarding of a runtime when it is dropped. Made by [`Watchdog::guard`],
/// [`Watchdog::guard_builder`] and [`guard`].
pub struct Guard {
    guarded: Option<Arc<Guarded>>,
}

impl Guard {
    /// Begins to look, unless time is mocked: then nothing is known of the machine's threads. In the child of a fork
    /// no thread looks.
    fn begin(guarded: Arc<Guarded>) -> Self {
        if !guarded.clock().is_real() || sys::is_forked() {
            return Self { guarded: None };
        }
        guarded.register();
        if let Err(error) = prober::start() {
            let error = error.whole();
            tracing::error!(target: "shotclock", %error, "the lag of a runtime is not measured");
        }
        Self {
            guarded: Some(guarded),
        }
    }

    /// Whether a runtime is guarded: one that exists already, and has not ended.
    pub fn is_active(&self) -> bool {
        let guarded = self.guarded.as_ref();
        guarded.is_some_and(|guarded| guarded.is_attached())
    }

    /// What the hooks of the runtime are to call, for who sets hooks of their own.
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

/// What the hooks of a guarded runtime call. Made by [`Guard::hooks`]; without effect once the guard is
/// dropped.
#[derive(Clone, Default)]
pub struct GuardHooks {
    /// It holds the runtime's handle, and the runtime these hooks: until the guard is over.
    pub(super) guarded: Option<Arc<Guarded>>,
}

impl GuardHooks {
    /// To be called from `on_thread_park` of the runtime's builder. It takes some tens of nanoseconds.
    pub fn on_thread_park(&self) {
        let Some(guarded) = self.guarded.as_ref().filter(|guarded| !guarded.has_ended()) else {
            return;
        };
        if !guarded.is_attached() {
            if let Ok(handle) = Handle::try_current() {
                guarded.attach(&handle);
                prober::wake();
            }
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

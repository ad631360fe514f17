//! Floor 6: the watchdog that users hold, its builder and the guards of runtimes.

mod builder;
mod escalation;
mod guard;
#[cfg(tokio_unstable)]
mod tasks;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "page")]
use crate::clock::Clock;
use crate::containment;
use crate::dispatch::{Dispatcher, History};
use crate::report::Culprits;
use crate::sentinel::Capabilities;
use crate::watch::{Health, Snapshot, Watch, WatchdogInner};

pub use builder::WatchdogBuilder;
pub use escalation::Escalation;
pub use guard::{Guard, GuardHooks, guard};

/// Times the polls of watched futures, and reports the slow ones.
///
/// `Watchdog` is a handle: clones are cheap, and share one watchdog. Its statistics and reporters live as long as a
/// handle or one of its watches.
///
/// # Examples
///
/// ```
/// use shotclock::{WatchExt as _, Watchdog};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), shotclock::Error> {
/// let watchdog = Watchdog::builder()
///     .budget(Duration::from_millis(10))
///     .build()?;
///
/// async { 1 + 1 }.watched(&watchdog.watch("checkout")).await;
///
/// println!("{}", watchdog.snapshot());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Watchdog {
    inner: Arc<WatchdogInner>,
    dispatcher: Arc<Dispatcher>,
    history: Arc<History>,
    guard_budget_nanos: u64,
}

impl Watchdog {
    /// Returns the watch of that name, and registers it at the first call.
    ///
    /// Get a watch once and keep it: this method takes a lock and allocates.
    ///
    /// [`WatchdogBuilder::max_watches`] bounds the number of names, because each costs memory, and series in Prometheus.
    /// Past the limit, all further names share one watch named `other`, and the crate logs one warning. An empty name
    /// becomes `unnamed`.
    ///
    /// # Examples
    ///
    /// ```
    /// # let watchdog = shotclock::Watchdog::builder().build()?;
    /// let checkout = watchdog.watch("checkout");
    /// let tenant = watchdog.watch(format!("tenant {}", 7));
    /// assert_eq!(tenant.name(), "tenant 7");
    /// # Ok::<(), shotclock::Error>(())
    /// ```
    pub fn watch(&self, name: impl Into<Cow<'static, str>>) -> Watch {
        Watch::named(&self.inner, name.into())
    }

    /// Returns the default budget of watches.
    pub fn budget(&self) -> Duration {
        self.inner.budget
    }

    /// Returns what all watches have counted so far. `Display` prints a table.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(&self.inner.registry.counters(), &self.inner.clock)
    }

    /// Returns the functions that held workers longest past their budgets.
    ///
    /// It sums the reports with a stack by the innermost function of the program. Reports of this moment may still be on
    /// their way: [`flush`](Self::flush) waits for them.
    ///
    /// # Examples
    ///
    /// ```
    /// # let watchdog = shotclock::Watchdog::builder().build()?;
    /// let culprits = watchdog.culprits();
    /// println!("{culprits}");
    /// # Ok::<(), shotclock::Error>(())
    /// ```
    pub fn culprits(&self) -> Culprits {
        self.history.culprits()
    }

    /// Returns whether any poll or worker of this watchdog is stalled now.
    ///
    /// This reads what the threads publish, and waits for none of them. Use it in a health check on a thread of its own,
    /// because a stuck runtime answers nothing. For the workers of guarded runtimes, it has the result of the sentinel's
    /// last scan. If that is too old, the status is [`Status::Unknown`](crate::Status::Unknown).
    ///
    /// # Examples
    ///
    /// ```
    /// use shotclock::Status;
    ///
    /// # let watchdog = shotclock::Watchdog::builder().build()?;
    /// let health = watchdog.health();
    /// assert_eq!(health.status, Status::Responsive);
    /// assert_eq!(health.to_string(), "responsive");
    /// # Ok::<(), shotclock::Error>(())
    /// ```
    pub fn health(&self) -> Health {
        Health::of(&self.inner)
    }

    /// Returns which diagnostics are available in this process, and why the others are not.
    ///
    /// This waits for the self-test of stack captures, which the first watchdog runs once, in its first milliseconds.
    ///
    /// # Examples
    ///
    /// ```
    /// # let watchdog = shotclock::Watchdog::builder().build()?;
    /// println!("{}", watchdog.capabilities());
    /// # Ok::<(), shotclock::Error>(())
    /// ```
    pub fn capabilities(&self) -> Capabilities {
        let stacks = self.inner.sink.policy().stacks;
        Capabilities::of(stacks, containment::obstacle())
    }

    /// Waits until all reports made before this call have reached their reporters. Returns false after `timeout`.
    ///
    /// Call it at the end of a program or a test: the reporters' threads end with the process, done or not. In the child of
    /// a fork it returns false at once, because these threads are the parent's. A reporter that calls it from its own thread
    /// waits for itself until `timeout`.
    ///
    /// It blocks the calling thread. In async code, call it where nothing else has to run, as at the end of `main`.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.dispatcher.flush(timeout)
    }

    #[cfg(feature = "page")]
    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    #[cfg(feature = "page")]
    pub(crate) fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// Returns the number of reports that found a full queue.
    #[cfg(test)]
    pub(crate) fn dropped_reports(&self) -> u64 {
        let dropped = &self.inner.registry.unreported.dropped;
        dropped.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Publishes counters and gauges now, on the calling thread, instead of within a second.
    ///
    /// Call it before a scrape of a foreign exporter, and in tests; `shotclock::prometheus` does it by itself. It publishes
    /// for all watchdogs of the process, to the recorder that is current at the call. Durations that wait to be recorded go
    /// to that recorder only.
    #[cfg(feature = "metrics")]
    pub fn publish_metrics(&self) {
        crate::publish::publish();
    }
}

impl fmt::Debug for Watchdog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watchdog")
            .field("budget", &self.inner.budget)
            .finish_non_exhaustive()
    }
}

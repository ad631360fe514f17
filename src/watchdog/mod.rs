//! Floor 6: the watchdog that users hold, and its set-up, which wires everything.

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
use crate::report::{Archive, Culprits, Desk};
use crate::sentinel::Capabilities;
use crate::watch::{Health, Snapshot, Watch, WatchdogInner};

pub use builder::Builder;
pub use escalation::Escalation;
pub use guard::{Guard, GuardHooks, default_watchdog, guard};

/// Times the polls of a program, and tells of the slow ones.
///
/// A handle: cloning it is cheap, and all clones are the same watchdog. Its statistics and
/// reporters live as long as a handle or one of its watches does.
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
    desk: Arc<Desk>,
    archive: Arc<Archive>,
    /// Nanoseconds.
    guard_budget: u64,
}

impl Watchdog {
    /// The watch of that name, made if there is none yet.
    ///
    /// Get it once and keep it: this takes a lock and allocates.
    ///
    /// The number of names is bounded ([`Builder::max_watches`]), because each costs memory here and
    /// series in Prometheus. Past the limit, further names share one watch named `other`, and one
    /// `tracing` warning says so. An empty name is taken as `unnamed`.
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

    /// The budget of the watches that were given none of their own.
    pub fn budget(&self) -> Duration {
        self.inner.budget
    }

    /// What all watches have counted so far. `Display` prints a table.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(&self.inner.registry.counters(), &self.inner.clock)
    }

    /// Which functions held the workers most: the reports that carry a stack, added up by the innermost
    /// function of the program's own.
    ///
    /// What is reported at this moment may be on its way still: [`flush`](Self::flush) waits for it.
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
        self.archive.culprits()
    }

    /// Whether any poll of this watchdog is stuck at this moment.
    ///
    /// It reads what the threads publish, and waits for none of them: of use in a health check that
    /// is answered by a thread of its own, since a runtime that is stuck answers nothing. Of the workers of
    /// guarded runtimes it knows what the watchdog's own thread saw when it last looked; where that was too
    /// long ago, it says so ([`Status::Unknown`](crate::Status::Unknown)).
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

    /// What works on this system and in this process, and why not what does not.
    ///
    /// Waits until the capture of a stack has been tried out, which happens once, in the first
    /// milliseconds of the first watchdog.
    ///
    /// # Examples
    ///
    /// ```
    /// # let watchdog = shotclock::Watchdog::builder().build()?;
    /// println!("{}", watchdog.capabilities());
    /// # Ok::<(), shotclock::Error>(())
    /// ```
    pub fn capabilities(&self) -> Capabilities {
        let stacks = self.inner.slow.orders().stacks;
        Capabilities::of(stacks, containment::obstacle())
    }

    /// Waits until every report made before this call was handed to its reporters, at most for
    /// `timeout`. Returns whether that was so. In the child of a fork it returns `false` at once: the
    /// threads of the reporters are the parent's.
    ///
    /// Of use at the end of a program or a test: reporters have threads of their own, which end with
    /// the process whether they are done or not. A reporter that calls it from its own thread waits
    /// for itself, that is, for the whole of `timeout`.
    ///
    /// It blocks the calling thread: in async code, call it where nothing else has to run any more,
    /// as at the end of `main`.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.desk.flush(timeout)
    }

    #[cfg(feature = "page")]
    pub(crate) fn archive(&self) -> &Archive {
        &self.archive
    }

    #[cfg(feature = "page")]
    pub(crate) fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// How many reports a reporter could not keep up with.
    #[cfg(test)]
    pub(crate) fn dropped_reports(&self) -> u64 {
        let dropped = &self.inner.registry.unreported.dropped;
        dropped.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Publishes counters and gauges now, on the calling thread, instead of within a second.
    ///
    /// It publishes to the recorder in force where it is called; single durations that wait to be
    /// recorded go to that one alone.
    ///
    /// Of use before a foreign exporter is scraped, and in tests:
    /// `shotclock::prometheus` does it by itself. It publishes for every watchdog of the
    /// process, because watches of one name are added up.
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

//! Floor 4: what is said of a slow poll and of a stuck worker, to whom, and on which thread.

mod again;
mod archive;
mod culprit;
mod culprits;
mod desk;
#[cfg(all(
    any(test, fuzzing),
    not(any(shotclock_loom, miri)),
    target_os = "linux",
    target_arch = "x86_64",
    feature = "page",
    feature = "prometheus",
    feature = "testing"
))]
pub(crate) mod fuzzing;
mod hint;
mod later;
#[cfg(feature = "page")]
mod latest;
mod outlet;
mod slow_poll;
mod stuck;
mod stuck_worker;
mod tracing;

pub(crate) use self::tracing::TracingReporter;
pub(crate) use archive::{Archive, Archivist};
pub use culprit::Culprit;
pub use culprits::Culprits;
#[cfg(feature = "testing")]
pub(crate) use desk::finished;
pub(crate) use desk::{Desk, Limits};
pub(crate) use later::{is_any as is_any_left_for_later, run_all as run_what_was_left_for_later};
#[cfg(feature = "page")]
pub(crate) use latest::Recent;
pub(crate) use outlet::Outlet;
pub use slow_poll::{Path, Phase, SlowPoll};
pub use stuck_worker::StuckWorker;

/// Something that is told of slow polls, and of stuck workers.
///
/// Each reporter has a thread and a bounded queue of its own, and is never called on a runtime
/// worker. So it may block, log or panic: it delays no poll and no other reporter. What it cannot
/// keep up with is dropped and counted (`shotclock_reports_dropped_total`); after a panic it is
/// called again for the next report. Slow polls on its own thread are counted and not reported, so
/// that it cannot feed itself.
///
/// All signals but those of a fault are blocked on that thread, and on the threads that a reporter starts.
///
/// A reporter lives as long as its watchdog and its watches do; one that holds a handle of them
/// itself lives for ever.
///
/// A closure is a reporter, see [`Builder::on_slow_poll`](crate::Builder::on_slow_poll).
///
/// # Examples
///
/// ```
/// use shotclock::{Reporter, SlowPoll, Watchdog};
///
/// struct Pager;
///
/// impl Reporter for Pager {
///     fn on_slow_poll(&self, slow: &SlowPoll) {
///         eprintln!("{slow}");
///     }
/// }
///
/// let watchdog = Watchdog::builder().reporter(Pager).build()?;
/// # drop(watchdog);
/// # Ok::<(), shotclock::Error>(())
/// ```
pub trait Reporter: Send + 'static {
    /// Called once for each report of a poll.
    fn on_slow_poll(&self, slow: &SlowPoll);

    /// Called once for each report of a worker of a guarded runtime
    /// ([`Watchdog::guard`](crate::Watchdog::guard)). Does nothing unless it is implemented.
    fn on_stuck_worker(&self, stuck: &StuckWorker) {
        let _ = stuck;
    }
}

/// A closure that is told of stuck workers alone.
pub(crate) struct OfWorkers<F>(pub(crate) F);

impl<F: Fn(&StuckWorker) + Send + 'static> Reporter for OfWorkers<F> {
    fn on_slow_poll(&self, _: &SlowPoll) {}

    fn on_stuck_worker(&self, stuck: &StuckWorker) {
        (self.0)(stuck);
    }
}

impl<F: Fn(&SlowPoll) + Send + 'static> Reporter for F {
    fn on_slow_poll(&self, slow: &SlowPoll) {
        self(slow);
    }
}

//! The receiver of reports.

use super::{SlowPoll, StuckWorker};

/// Receives reports of slow polls and of stuck workers.
///
/// Each reporter has a thread and a bounded queue of its own, and never runs on a runtime worker. So it may block,
/// log or panic: it delays no poll and no other reporter. The crate drops and counts reports that find the queue full
/// (`shotclock_reports_dropped_total`). After a panic, the reporter still gets the next report. The crate counts slow
/// polls on the reporter's own thread and does not report them, so a reporter cannot feed itself.
///
/// The reporter's thread, and the threads that it starts, block all signals but those of a fault.
///
/// A reporter lives as long as its watchdog and its watches. A reporter that holds one of these itself never ends.
///
/// A closure is a reporter too: see [`WatchdogBuilder::on_slow_poll`](crate::WatchdogBuilder::on_slow_poll).
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
    /// Receives one report of a slow or stalled poll.
    fn on_slow_poll(&self, slow: &SlowPoll);

    /// Receives one report of a worker of a guarded runtime ([`Watchdog::guard`](crate::Watchdog::guard)).
    ///
    /// The default implementation does nothing.
    fn on_stuck_worker(&self, stuck: &StuckWorker) {
        let _ = stuck;
    }
}

/// Makes a reporter of a closure that receives stuck workers only.
pub(crate) struct WorkerReporter<F>(pub(crate) F);

impl<F: Fn(&StuckWorker) + Send + 'static> Reporter for WorkerReporter<F> {
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

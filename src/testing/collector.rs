//! A reporter that keeps all reports.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::text::counted;
use crate::report::{Phase, Reporter, SlowPoll, StuckWorker};
use crate::sync::IgnorePoison as _;
use crate::watchdog::Watchdog;

/// The longest wait for a report before a test fails: enough for a busy machine.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Keeps all reports, for tests of a watchdog's settings.
///
/// It is a [`Reporter`], and a handle: clones keep reports in the same list. Reports come from another thread, so the
/// assertions wait for queued reports.
///
/// # Examples
///
/// ```
/// use shotclock::testing::Recorder;
/// use shotclock::{WatchExt as _, Watchdog};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), shotclock::Error> {
/// let recorder = Recorder::new();
/// let watchdog = Watchdog::builder()
///     .budget(Duration::from_millis(5))
///     .reporter(recorder.clone())
///     .build()?;
/// recorder.assert_silent(&watchdog);
///
/// async { std::thread::sleep(Duration::from_millis(200)) }
///     .watched(&watchdog.watch("checkout"))
///     .await;
///
/// let slow = recorder.assert_reported(&watchdog, "checkout");
/// assert_eq!(slow.budget, Duration::from_millis(5));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Recorder {
    kept: Arc<KeptReports>,
}

#[derive(Default)]
struct KeptReports {
    reports: Mutex<Vec<SlowPoll>>,
    stuck_workers: Mutex<Vec<StuckWorker>>,
    arrived: Condvar,
}

impl Reporter for Recorder {
    fn on_slow_poll(&self, slow: &SlowPoll) {
        self.lock().push(slow.clone());
        self.kept.arrived.notify_all();
    }

    fn on_stuck_worker(&self, stuck: &StuckWorker) {
        self.lock_workers().push(stuck.clone());
    }
}

impl Recorder {
    /// Makes a recorder without reports.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the reports of polls so far, in order. Queued reports are not among them: see [`settled`](Self::settled).
    pub fn reports(&self) -> Vec<SlowPoll> {
        self.lock().clone()
    }

    /// Returns the reports of stuck workers so far, in order.
    pub fn stuck_workers(&self) -> Vec<StuckWorker> {
        self.lock_workers().clone()
    }

    /// Takes the reports of polls so far, and empties the list.
    pub fn take(&self) -> Vec<SlowPoll> {
        std::mem::take(&mut self.lock())
    }

    /// Returns the reports of polls, after a wait for those that are queued now.
    ///
    /// # Panics
    ///
    /// If the reporters of the watchdog do not receive the queued reports within a minute.
    #[track_caller]
    pub fn settled(&self, watchdog: &Watchdog) -> Vec<SlowPoll> {
        let is_settled = watchdog.flush(MAX_WAIT);
        assert!(
            is_settled,
            "the reporters did not receive all reports within {MAX_WAIT:?}"
        );
        self.reports()
    }

    /// Returns the first report for which `wanted` is true. Waits for it if there is none yet.
    ///
    /// Use it for reports of a poll that still runs.
    ///
    /// # Panics
    ///
    /// If there is none within a minute. It blocks the calling thread, so no poll may depend on that thread.
    #[track_caller]
    pub fn wait_for(&self, wanted: impl Fn(&SlowPoll) -> bool) -> SlowPoll {
        let deadline = Instant::now() + MAX_WAIT;
        let mut reports = self.lock();
        loop {
            if let Some(slow) = reports.iter().find(|slow| wanted(slow)) {
                return slow.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "no such report within {MAX_WAIT:?}; {}",
                List(&reports)
            );
            let waited = self.kept.arrived.wait_timeout(reports, left);
            reports = waited.ignore_poison().0;
        }
    }

    /// Asserts that there is no report of a poll or a worker.
    ///
    /// # Panics
    ///
    /// If there is a report, with all reports as the message. Also if the reporters of the watchdog do not receive the queued
    /// reports within a minute.
    #[track_caller]
    pub fn assert_silent(&self, watchdog: &Watchdog) {
        let reports = self.settled(watchdog);
        assert!(reports.is_empty(), "{}", List(&reports));
        let workers = self.stuck_workers();
        assert!(workers.is_empty(), "{}", List(&workers));
    }

    /// Asserts that there is a report of an ended poll of a watch. Returns the last one.
    ///
    /// # Panics
    ///
    /// If there is no such report, with all reports as the message. Also if the reporters of the watchdog do not receive the
    /// queued reports within a minute.
    #[track_caller]
    pub fn assert_reported(&self, watchdog: &Watchdog, watch: &str) -> SlowPoll {
        let reports = self.settled(watchdog);
        let is_wanted = |slow: &&SlowPoll| slow.phase == Phase::Finished && *slow.watch == *watch;
        let Some(slow) = reports.iter().rev().find(is_wanted) else {
            panic!("no poll of {watch:?} was reported; {}", List(&reports));
        };
        slow.clone()
    }

    fn lock_workers(&self) -> MutexGuard<'_, Vec<StuckWorker>> {
        let workers = self.kept.stuck_workers.lock();
        workers.ignore_poison()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<SlowPoll>> {
        let reports = self.kept.reports.lock();
        reports.ignore_poison()
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("reports", &self.lock().len())
            .finish_non_exhaustive()
    }
}

/// Reports in the message of an assertion.
struct List<'r, R>(&'r [R]);

impl<R: fmt::Display> fmt::Display for List<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("nothing was reported"),
            reports => {
                write!(f, "{}:", counted(reports.len() as u64, "report"))?;
                reports
                    .iter()
                    .try_for_each(|report| write!(f, "\n- {report}"))
            }
        }
    }
}

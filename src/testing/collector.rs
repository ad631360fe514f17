//! A reporter that keeps what it is told.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::text::counted;
use crate::report::{Phase, Reporter, SlowPoll, StuckWorker};
use crate::sync::IgnorePoison as _;
use crate::watchdog::Watchdog;

/// How long is waited for a report before a test fails: long enough for any machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A [`Reporter`] that keeps every report, for tests of a set-up: is what should be watched watched,
/// under which name, with which budget?
///
/// A handle: clones keep into the same list. Reports come from another thread, so the assertions wait
/// for those that are on their way.
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
    kept: Arc<Kept>,
}

#[derive(Default)]
struct Kept {
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
    /// One that has kept nothing so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// What was reported of polls so far, in order. What is still on its way is not in it: see
    /// [`settled`](Self::settled).
    pub fn reports(&self) -> Vec<SlowPoll> {
        self.lock().clone()
    }

    /// What was reported so far of workers of guarded runtimes, in order.
    pub fn stuck_workers(&self) -> Vec<StuckWorker> {
        self.lock_workers().clone()
    }

    /// Takes what was reported of polls so far, so that the list is empty again.
    pub fn take(&self) -> Vec<SlowPoll> {
        std::mem::take(&mut self.lock())
    }

    /// What was reported, with everything that was on its way when this was called.
    ///
    /// # Panics
    ///
    /// If the reporters of the watchdog have not kept up within a minute.
    #[track_caller]
    pub fn settled(&self, watchdog: &Watchdog) -> Vec<SlowPoll> {
        let is_settled = watchdog.flush(PATIENCE);
        assert!(is_settled, "the reporters did not come within {PATIENCE:?}");
        self.reports()
    }

    /// Waits for a report that is wanted, or gives the one that has been kept already. For what is
    /// reported while a poll runs.
    ///
    /// # Panics
    ///
    /// If there is none within a minute. It blocks its thread: call it where no poll waits for it.
    #[track_caller]
    pub fn wait_for(&self, wanted: impl Fn(&SlowPoll) -> bool) -> SlowPoll {
        let deadline = Instant::now() + PATIENCE;
        let mut reports = self.lock();
        loop {
            if let Some(slow) = reports.iter().find(|slow| wanted(slow)) {
                return slow.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "no such report within {PATIENCE:?}; {}",
                List(&reports)
            );
            let waited = self.kept.arrived.wait_timeout(reports, left);
            reports = waited.ignore_poison().0;
        }
    }

    /// Asserts that nothing was reported, of a poll or of a worker.
    ///
    /// # Panics
    ///
    /// With the reports, if there are any; or if the reporters of the watchdog have not kept up within a
    /// minute.
    #[track_caller]
    pub fn assert_silent(&self, watchdog: &Watchdog) {
        let reports = self.settled(watchdog);
        assert!(reports.is_empty(), "{}", List(&reports));
        let workers = self.stuck_workers();
        assert!(workers.is_empty(), "{}", List(&workers));
    }

    /// Asserts that a poll of a watch was reported to have ended, and gives the last such report.
    ///
    /// # Panics
    ///
    /// With the reports that there are, if there is none of it; or if the reporters of the watchdog have
    /// not kept up within a minute.
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

//! A clock that only a test advances.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::{Clock, MockTime};
use crate::sentinel::Scanner;
use crate::sync::IgnorePoison as _;
use crate::watchdog::WatchdogBuilder;

/// Replaces the clock of a watchdog in a test. Only [`advance`](Self::advance) moves it, so each time in a report is exact.
///
/// A clock is a handle: clones are the same clock. Under it, a watchdog reads nothing from the operating system, so reports
/// have no cause and no stack. The sentinel scans only when [`look`](Self::look) is called.
///
/// # Examples
///
/// ```
/// use shotclock::testing::{MockClock, Recorder};
/// use shotclock::{Phase, WatchExt as _, Watchdog};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), shotclock::Error> {
/// let (clock, recorder) = (MockClock::new(), Recorder::new());
/// let watchdog = Watchdog::builder()
///     .mock_clock(&clock)
///     .reporter(recorder.clone())
///     .build()?;
///
/// async {
///     clock.advance(Duration::from_millis(30));
///     clock.look(); // reports the stalled poll
///     clock.advance(Duration::from_millis(5));
/// }
/// .watched(&watchdog.watch("checkout"))
/// .await;
///
/// let reports = recorder.settled(&watchdog);
/// assert_eq!(reports[0].phase, Phase::Running);
/// assert_eq!(reports[1].phase, Phase::Finished);
/// assert_eq!(reports[1].elapsed, Duration::from_millis(35));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MockClock {
    clock: Clock,
    time: Arc<MockTime>,
    scanner: Arc<Mutex<Scanner>>,
}

impl MockClock {
    /// Makes a clock that is independent of all others.
    pub fn new() -> Self {
        let (clock, time) = Clock::mock();
        let scanner = Arc::new(Mutex::new(Scanner::new(clock.clone())));
        Self {
            clock,
            time,
            scanner,
        }
    }

    /// Advances the clock.
    ///
    /// # Panics
    ///
    /// If the clock comes to more than `u64::MAX` nanoseconds, which is 584 years.
    pub fn advance(&self, time: Duration) {
        self.time.increment(time);
    }

    /// Scans the polls in flight, as the sentinel would now.
    ///
    /// Reports each stalled poll that was not reported yet, or that is now twice as old as at its last report.
    pub fn look(&self) {
        let mut scanner = self.scanner.lock().ignore_poison();
        scanner.scan();
    }
}

impl Default for MockClock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MockClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockClock").finish_non_exhaustive()
    }
}

impl WatchdogBuilder {
    /// Times the polls by a mocked clock, for tests of reporters and of watchdog settings.
    pub fn mock_clock(self, clock: &MockClock) -> Self {
        self.clock(clock.clock.clone())
    }
}

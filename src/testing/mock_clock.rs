//! A clock that stands still until it is told to pass.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::{Clock, MockTime};
use crate::sentinel::Scanner;
use crate::sync::IgnorePoison as _;
use crate::watchdog::WatchdogBuilder;

/// A clock for tests: it stands still until it is told to pass, so that every time in a report is exact.
///
/// A handle: clones are the same clock. Under it a watchdog asks nothing of the operating system: there
/// are no causes and no stacks, and the sentinel does not look by itself, but when
/// [`look`](Self::look) says so.
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
///     clock.look(); // it is stuck, and told
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
    /// A clock of its own: no two of them tell the same time.
    pub fn new() -> Self {
        let (clock, time) = Clock::mock();
        let scanner = Arc::new(Mutex::new(Scanner::new(clock.clone())));
        Self {
            clock,
            time,
            scanner,
        }
    }

    /// Lets time pass.
    ///
    /// # Panics
    ///
    /// If the clock comes to more than `u64::MAX` nanoseconds, which is 584 years.
    pub fn advance(&self, time: Duration) {
        self.time.increment(time);
    }

    /// Looks at the polls in flight as the sentinel would at this moment: what is over its budget and
    /// still runs is reported, if it has not been, or has run twice as long since.
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
    /// Times the polls by a clock that stands still until it is told to pass. For tests of reporters
    /// and of set-ups.
    pub fn mock_clock(self, clock: &MockClock) -> Self {
        self.clock(clock.clock.clone())
    }
}

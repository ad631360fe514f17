//! Floor 5: declares blocking that the program accepts.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use crate::clock::Clock;
use crate::report::Allowance;
use crate::slot::{self, Slot};

/// Allows the calling thread to block for up to `max`, until the guard is dropped.
///
/// Use it for blocking that you accept: a configuration that is read once, or a library without an alternative. Reports
/// do not charge this time, up to `max`, to the watched polls around it. Such a poll still counts as slow
/// (`shotclock_slow_polls_total`), and as not reported (`shotclock_reports_suppressed_total{reason="allowed"}`).
///
/// A guard that lives longer than `max` excuses nothing. Then the report charges all of the time, and has the allowance
/// that the poll exceeded ([`SlowPoll::allowance`]).
///
/// [`SlowPoll::allowance`]: crate::SlowPoll::allowance
///
/// # Examples
///
/// ```
/// use shotclock::{WatchExt as _, Watchdog, allow_blocking};
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), shotclock::Error> {
/// static REPORTS: AtomicU64 = AtomicU64::new(0);
/// let watchdog = Watchdog::builder()
///     .on_slow_poll(|_: &_| drop(REPORTS.fetch_add(1, Ordering::Relaxed)))
///     .build()?;
/// let start_up = watchdog.watch("start-up");
/// async {
///     let _allowed = allow_blocking("reading the configuration", Duration::from_secs(60));
///     std::thread::sleep(Duration::from_millis(200));
/// }
/// .watched(&start_up)
/// .await;
///
/// watchdog.flush(Duration::from_secs(60));
/// assert_eq!(start_up.stats().slow_polls, 1);
/// assert_eq!(REPORTS.load(Ordering::Relaxed), 0);
/// # Ok(())
/// # }
/// ```
///
/// # Non-guarantees
///
/// The guard belongs to its thread, so use it for code without `.await`. Across an `.await` it would excuse other tasks on
/// that thread.
#[must_use = "blocking is allowed until the guard is dropped"]
pub fn allow_blocking(reason: impl Into<Cow<'static, str>>, max: Duration) -> AllowBlockingGuard {
    let allowance = Allowance::new(reason.into().into(), max);
    let clock = Clock::new();
    let begun = slot::current().map(|slot| {
        let (polls, now) = (slot.seqs(), clock.raw());
        let elapsed = |since| clock.nanos_between(since, now);
        let allowances = &mut slot.diagnostics().allowances;
        (slot, allowances.begin(now, allowance, &polls, elapsed))
    });
    AllowBlockingGuard {
        begun,
        clock,
        not_send: PhantomData,
    }
}

/// Allows blocking until it is dropped. [`allow_blocking`] makes it.
pub struct AllowBlockingGuard {
    begun: Option<(&'static Slot, u64)>,
    clock: Clock,
    /// The allowance belongs to one thread.
    not_send: PhantomData<*const ()>,
}

impl Drop for AllowBlockingGuard {
    fn drop(&mut self) {
        let Some((slot, ticket)) = self.begun.filter(|(slot, _)| slot::is_current(slot)) else {
            return;
        };
        let now = self.clock.raw();
        let elapsed = |since| self.clock.nanos_between(since, now);
        let (polls, starts) = (slot.seqs(), slot.starts());
        let allowances = &mut slot.diagnostics().allowances;
        allowances.end(ticket, &polls, &starts, elapsed);
    }
}

impl fmt::Debug for AllowBlockingGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AllowBlockingGuard").finish_non_exhaustive()
    }
}

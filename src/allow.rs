//! Floor 5: declared exceptions.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use crate::clock::Clock;
use crate::slot::{self, Allowance, Slot};

/// Declares that the calling thread may block for `max`, until the guard is dropped.
///
/// For what is known and accepted: a configuration that is read once, a library that has no other
/// way. The time in there, up to `max`, is not held against the budgets of the watched polls around
/// it when it comes to reporting. Such a poll is counted as the slow poll that it is
/// (`shotclock_slow_polls_total`), and once more as one that was not reported
/// (`shotclock_reports_suppressed_total{reason="allowed"}`).
///
/// A guard that is kept for longer than `max` excuses nothing: then the poll is reported with all of
/// its time, and the report says which allowance it went past ([`SlowPoll::allowance`]).
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
/// The guard is for code without `.await` in it: it belongs to its thread, and held across an
/// `.await` it excuses whatever runs there meanwhile.
#[must_use = "blocking is allowed until the guard is dropped"]
pub fn allow_blocking(reason: impl Into<Cow<'static, str>>, max: Duration) -> Allowed {
    let allowance = Allowance::new(reason.into().into(), max);
    let clock = Clock::new();
    let begun = slot::current().map(|slot| {
        let (polls, now) = (slot.seqs(), clock.raw());
        let elapsed = |since| clock.nanos_between(since, now);
        let exceptions = &mut slot.diagnostics().exceptions;
        (slot, exceptions.begin(now, allowance, &polls, elapsed))
    });
    Allowed {
        begun,
        clock,
        not_send: PhantomData,
    }
}

/// Blocking is allowed while this lives. Made by [`allow_blocking`].
pub struct Allowed {
    begun: Option<(&'static Slot, u64)>,
    clock: Clock,
    /// It is an exception for one thread.
    not_send: PhantomData<*const ()>,
}

impl Drop for Allowed {
    fn drop(&mut self) {
        let Some((slot, ticket)) = self.begun.filter(|(slot, _)| slot::is_current(slot)) else {
            return;
        };
        let now = self.clock.raw();
        let elapsed = |since| self.clock.nanos_between(since, now);
        let (polls, starts) = (slot.seqs(), slot.starts());
        let exceptions = &mut slot.diagnostics().exceptions;
        exceptions.end(ticket, &polls, &starts, elapsed);
    }
}

impl fmt::Debug for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allowed").finish_non_exhaustive()
    }
}

//! Audits a future: times each poll, and returns a record of all polls at the end.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::auditor::{Auditor, DEFAULT_BUDGET};
use super::origin::Origin;
use super::records::{AuditRecord, AuditedPoll};
use super::text;
use crate::report::SlowPoll;

/// Times each poll of a future, and returns an [`Audit`] at its end.
///
/// Tasks that the future spawns have their own polls. Audit them where they are spawned. Audit a stream through the future
/// that drives it (`audit(stream.collect::<Vec<_>>())`).
///
/// An audited poll costs its thread some microseconds before and after it, to read the counters of the operating system.
/// They are not part of its times. An audit keeps 48 bytes for each poll. The first audit of a process waits until stacks can
/// be captured, which takes some dozens of milliseconds in a program with debug information.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let handler = async {
///     tokio::task::yield_now().await;
///     "done"
/// };
/// let audit = shotclock::testing::audit(handler).await;
///
/// assert_eq!((audit.polls(), audit.yields()), (2, 1));
/// assert!(audit.longest_own() < Duration::from_secs(1));
/// assert_eq!(audit.slow_polls(Duration::from_secs(1)), 0);
/// println!("{audit}");
/// assert_eq!(audit.output, "done");
/// # }
/// ```
///
/// # Cancel safety
///
/// It is as cancel safe as the future. A drop before the end leaves no audit.
///
/// # Non-guarantees
///
/// The destructor of the future is not audited.
///
/// A capture of the stack wakes a sleeping thread. If a busy machine does not run the thread again before the end of its
/// sleep, the length of the sleep is unknown. Then the active time is a lower bound, of at least the
/// [`budget`](Auditing::budget). In a virtual machine, stolen time counts as active time.
#[track_caller]
pub fn audit<F: Future>(future: F) -> Auditing<F> {
    let origin = Origin::of_future::<F>();
    Auditing {
        future,
        auditor: Some(Auditor::new(origin, Location::caller(), DEFAULT_BUDGET)),
    }
}

pin_project! {
    /// Audits a future. [`audit`] makes it.
    #[must_use = "futures do nothing unless they are polled"]
    pub struct Auditing<F> {
        #[pin]
        future: F,
        // None after the end.
        auditor: Option<Auditor>,
    }
}

impl<F: Future> Auditing<F> {
    /// Sets the budget. The default is 10 ms.
    ///
    /// The sentinel captures the stack of a poll that runs over the budget, and over 1 ms.
    pub fn budget(mut self, budget: Duration) -> Self {
        if let Some(auditor) = &mut self.auditor {
            auditor.set_budget(budget);
        }
        self
    }
}

impl<F: Future> Future for Auditing<F> {
    type Output = Audit<F::Output>;

    /// Polls the future, and records the poll.
    ///
    /// # Panics
    ///
    /// If it is polled after its end, as an `async` block does.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let auditor = this.auditor.as_mut();
        let auditor = auditor.expect("an audited future was polled after completion");
        let output = ready!(auditor.poll(cx, |cx| this.future.poll(cx)));
        match this.auditor.take() {
            Some(auditor) => Poll::Ready(Audit {
                output,
                record: auditor.finish(),
            }),
            None => Poll::Pending,
        }
    }
}

impl<F> fmt::Debug for Auditing<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auditing").finish_non_exhaustive()
    }
}

/// Holds the times of the polls of a future. [`audit`] makes it.
///
/// A poll has two times. *Elapsed* time is that of a clock. *Active* time is the elapsed time without the time on the run
/// queue: the thread computed, or it waited by its own action. The names of methods call it *own* time. A test on a busy
/// machine can rely on active time. If the operating system does not count it, it is the elapsed time
/// ([`knows_own_time`](Self::knows_own_time)).
///
/// `Display` prints a small table and a histogram.
pub struct Audit<T> {
    /// The output of the future.
    pub output: T,
    pub(super) record: AuditRecord,
}

impl<T> Audit<T> {
    /// Returns the number of polls.
    pub fn polls(&self) -> u64 {
        self.each().len() as u64
    }

    /// Returns the number of polls that returned `Pending`.
    pub fn yields(&self) -> u64 {
        self.record.yields
    }

    /// Returns the number of wake-ups. It may exceed the polls, because several wake-ups may cause one poll.
    pub fn wake_ups(&self) -> u64 {
        self.record.wake_ups
    }

    /// Returns the elapsed time from the begin of the first poll to the end of the last one.
    pub fn elapsed(&self) -> Duration {
        self.record.elapsed()
    }

    /// Returns the longest elapsed time of a poll.
    pub fn longest(&self) -> Duration {
        let elapsed = self.each().map(|poll| poll.elapsed);
        elapsed.max().unwrap_or_default()
    }

    /// Returns the longest active time of a poll.
    pub fn longest_own(&self) -> Duration {
        let active = self.each().map(|poll| poll.active);
        active.max().unwrap_or_default()
    }

    /// Returns the active time that a share `q` of all polls did not exceed: `quantile(0.99)` is the 99th percentile.
    ///
    /// It is the exact time of one poll. Returns `None` if `q` is not a number. A `q` below 0 counts as 0, and above 1 as 1.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        text::quantile(&text::sorted(self.each().map(|poll| poll.active)), q)
    }

    /// Counts the polls whose charged time exceeds a budget: the active time without the time under
    /// [`allow_blocking`](crate::allow_blocking).
    pub fn slow_polls(&self, budget: Duration) -> u64 {
        self.record.count_over(budget) as u64
    }

    /// Returns all polls, in order.
    pub fn each(&self) -> impl ExactSizeIterator<Item = AuditedPoll> + '_ {
        self.record.polls.iter().copied()
    }

    /// Returns the poll with the longest charged time, as a watchdog would report it.
    ///
    /// It has a cause and the division of its time. It has a stack if it ran over the [`budget`](Auditing::budget) for long
    /// enough.
    pub fn worst(&self) -> Option<SlowPoll> {
        self.record.worst()
    }

    /// Returns whether the operating system counted the active time of all polls. Otherwise some have their elapsed time
    /// instead.
    pub fn knows_own_time(&self) -> bool {
        !self.record.has_wall_time_only
    }
}

impl<T> fmt::Display for Audit<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        text::write(f, &self.record)
    }
}

impl<T: fmt::Debug> fmt::Debug for Audit<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit")
            .field("output", &self.output)
            .field("polls", &self.polls())
            .field("longest_own", &self.longest_own())
            .field("longest", &self.longest())
            .finish_non_exhaustive()
    }
}

//! Auditing a future: every poll is timed, and at the end there is an account of them all.

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

/// Times every poll of a future, and gives an [`Audit`] when it is done.
///
/// The audit is of this future's polls: what it spawns has polls of its own, and is audited where it is
/// spawned. A stream is audited by the future that drives it (`audit(stream.collect::<Vec<_>>())`).
///
/// An audited poll costs its thread some microseconds, for the questions to the operating system
/// before and after it; they are not in its times. An audit keeps 48 bytes a poll. The first one of a
/// process begins when it is known how to take stacks there, which takes some dozens of milliseconds for
/// a program with debug information.
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
/// As cancel safe as the future. One that is dropped before it is done leaves no audit.
///
/// # Non-guarantees
///
/// The destructor of the future is not audited.
///
/// A thread that sleeps is woken for its stack. Where a busy machine does not run it again before its
/// sleep is over, nobody knows how long it would have slept: its own time is told from below then, but
/// never as less than the [`budget`](Auditing::budget). In a virtual machine, the time that the host gives to
/// another machine is not accounted for, and counts as the poll's own.
#[track_caller]
pub fn audit<F: Future>(future: F) -> Auditing<F> {
    let origin = Origin::of_future::<F>();
    Auditing {
        future,
        auditor: Some(Auditor::new(origin, Location::caller(), DEFAULT_BUDGET)),
    }
}

pin_project! {
    /// A future that is being audited. Made by [`audit`].
    #[must_use = "futures do nothing unless they are polled"]
    pub struct Auditing<F> {
        #[pin]
        future: F,
        // None when it is done.
        auditor: Option<Auditor>,
    }
}

impl<F: Future> Auditing<F> {
    /// Which polls are of interest: of one that takes longer, and longer than 1 ms, the stack is taken
    /// while it runs. 10 ms unless it is set.
    pub fn budget(mut self, budget: Duration) -> Self {
        if let Some(auditor) = &mut self.auditor {
            auditor.set_budget(budget);
        }
        self
    }
}

impl<F: Future> Future for Auditing<F> {
    type Output = Audit<F::Output>;

    /// # Panics
    ///
    /// If it is polled after it was done, as an `async` block does.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let auditor = this.auditor.as_mut();
        let auditor = auditor.expect("an audited future was polled after it was done");
        let output = ready!(auditor.poll(cx, |cx| this.future.poll(cx)));
        match this.auditor.take() {
            Some(auditor) => Poll::Ready(Audit {
                output,
                book: auditor.finish(),
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

/// What the polls of a future took. Made by [`audit`].
///
/// Times are told in two ways. *Wall* time is what a clock says. A poll's *own* time is that less the
/// time in which its thread could have run and was not: it computed, or it waited of its own accord.
/// Own time is what a test can hold a poll to on a machine that it shares with others; where the
/// operating system does not account for it, it is the wall time
/// ([`knows_own_time`](Self::knows_own_time)).
///
/// `Display` prints a small table, and a histogram.
pub struct Audit<T> {
    /// What the future returned.
    pub output: T,
    pub(super) book: AuditRecord,
}

impl<T> Audit<T> {
    /// How often the future was polled.
    pub fn polls(&self) -> u64 {
        self.each().len() as u64
    }

    /// How often it gave the worker back before it was done: polls that returned `Pending`.
    pub fn yields(&self) -> u64 {
        self.book.yields
    }

    /// How often it was woken. It may be more than the polls: wake-ups that come together are one poll.
    pub fn wake_ups(&self) -> u64 {
        self.book.wake_ups
    }

    /// From the beginning of the first poll to the end of the last, by the wall.
    pub fn elapsed(&self) -> Duration {
        self.book.elapsed()
    }

    /// The longest wall time of a poll.
    pub fn longest(&self) -> Duration {
        let elapsed = self.each().map(|poll| poll.elapsed);
        elapsed.max().unwrap_or_default()
    }

    /// The longest own time of a poll.
    pub fn longest_own(&self) -> Duration {
        let active = self.each().map(|poll| poll.active);
        active.max().unwrap_or_default()
    }

    /// The own time within which a share `q` of all polls stayed: `quantile(0.99)` is the 99th
    /// percentile. Exact: it is the time of a poll. `None` if `q` is not a number; a `q` outside of 0
    /// to 1 is taken as the nearer of the two.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        text::quantile(&text::sorted(self.each().map(|poll| poll.active)), q)
    }

    /// How many polls were over a budget by their own time, less what
    /// [`allow_blocking`](crate::allow_blocking) declared.
    pub fn slow_polls(&self, budget: Duration) -> u64 {
        self.book.count_over(budget) as u64
    }

    /// Every poll, in order.
    pub fn each(&self) -> impl ExactSizeIterator<Item = AuditedPoll> + '_ {
        self.book.polls.iter().copied()
    }

    /// The poll that most own time is held against, as a watchdog would have reported it: with its
    /// cause, how its time divides, and, if it was over the [`budget`](Auditing::budget) for long
    /// enough to be looked at, its stack while it ran.
    ///
    /// Its `elapsed` is wall time, its `own` what was held against the budget.
    pub fn worst(&self) -> Option<SlowPoll> {
        self.book.worst()
    }

    /// Whether the operating system accounted for all of the polls. If not, the own time of some is
    /// their wall time.
    pub fn knows_own_time(&self) -> bool {
        !self.book.has_wall_time_only
    }
}

impl<T> fmt::Display for Audit<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        text::write(f, &self.book)
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

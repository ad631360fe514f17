//! Asserts that the polls of a future or stream keep to a budget.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::stream::Stream;
use pin_project_lite::pin_project;

use super::auditor::Auditor;
use super::failure::Failure;
use super::finish_guard::{FinishGuard, OnEnd};
use super::origin::Origin;
use super::records::AuditRecord;

/// Asserts that each poll of a future or stream keeps to a budget.
///
/// The poll is charged for its *active* time: the time in which its thread computed, or waited by its own action. The time
/// on the run queue is not charged, so the assertion also works on a busy machine. Outside Linux the system does not count
/// that time. Then the poll is charged for its elapsed time, and the failure says so.
///
/// The first argument is a [`Duration`]. The second is a future, whose output `.await` returns, or a stream, which becomes a
/// stream of the same items. The other arguments are a message, as for [`assert!`]. The macro formats it at the call.
///
/// # Examples
///
/// ```
/// use shotclock::assert_poll_budget;
/// use std::time::Duration;
///
/// async fn handler() -> u32 {
///     tokio::task::yield_now().await;
///     200
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let status = assert_poll_budget!(Duration::from_secs(1), handler()).await;
/// assert_eq!(status, 200);
/// # }
/// ```
///
/// Around a whole test:
///
/// ```
/// # use shotclock::assert_poll_budget;
/// # use std::time::Duration;
/// # async fn handler() -> u32 { 200 }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// assert_poll_budget!(Duration::from_secs(1), async {
///     assert_eq!(handler().await, 200);
///     assert_eq!(handler().await, 200);
/// }).await;
/// # }
/// ```
///
/// A stream, with a message:
///
/// ```
/// # use shotclock::assert_poll_budget;
/// # use std::time::Duration;
/// use futures::StreamExt as _;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let rows = shotclock::coop::iter(0..1_000);
/// let rows = assert_poll_budget!(Duration::from_secs(1), rows, "rows of {}", "table 7");
/// assert_eq!(rows.count().await, 1_000);
/// # }
/// ```
///
/// # Panics
///
/// If a poll was over the budget: at the end of the future or stream, or at its drop. The message names the poll, its times,
/// its cause and a hint, the stack of the longest one, and the line of the assertion. A panic of the future itself passes
/// through unchanged.
///
/// # Cancel safety
///
/// It is as cancel safe as the wrapped future. A drop checks the polls so far.
///
/// # Non-guarantees
///
/// Tasks that the future spawns have their own polls. Use the macro where they are spawned. The destructor of the future is
/// not checked. A poll that never ends cannot fail the test. The watchdog writes it to stderr with its stack within 5
/// seconds, and then at doubling times.
#[macro_export]
macro_rules! assert_poll_budget {
    ($budget:expr, $future:expr $(,)?) => {
        $crate::testing::__poll_budget(
            $budget,
            $future,
            ::core::option::Option::None,
            |failure| ::core::panic!("{failure}"),
        )
    };
    ($budget:expr, $future:expr, $($message:tt)+) => {
        $crate::testing::__poll_budget(
            $budget,
            $future,
            ::core::option::Option::Some(::std::format!($($message)+)),
            |failure| ::core::panic!("{failure}"),
        )
    };
    ($($anything:tt)*) => {
        ::core::compile_error!(
            "assert_poll_budget! takes a budget and a future or stream, as in \
             `assert_poll_budget!(Duration::from_millis(5), handler())`, and then a message, if any"
        )
    };
}

/// Marks a future ([`ByPoll`]) or a stream ([`ByPollNext`]).
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither a future nor a stream",
    label = "has no polls to hold to a budget"
)]
pub trait Pollable<By> {
    #[doc(hidden)]
    fn __origin() -> Origin;
}

/// Marks a future.
#[doc(hidden)]
#[derive(Debug)]
pub struct ByPoll;

/// Marks a stream.
#[doc(hidden)]
#[derive(Debug)]
pub struct ByPollNext;

impl<F: Future> Pollable<ByPoll> for F {
    fn __origin() -> Origin {
        Origin::of_future::<F>()
    }
}

impl<S: Stream> Pollable<ByPollNext> for S {
    fn __origin() -> Origin {
        Origin::of_stream::<S>()
    }
}

/// Implements the macro. `fail` panics at the line of its call.
#[doc(hidden)]
#[track_caller]
pub fn __poll_budget<T: Pollable<By>, By>(
    budget: Duration,
    inner: T,
    message: Option<String>,
    fail: fn(&str),
) -> PollBudget<T> {
    let auditor = Auditor::new(T::__origin(), Location::caller(), budget);
    PollBudget {
        inner,
        guard: FinishGuard::new(auditor, FailOverBudget { message, fail }),
    }
}

pin_project! {
    /// Holds the polls of a future or stream to a budget. [`assert_poll_budget!`](crate::assert_poll_budget) makes it.
    ///
    /// It is a `Future` or a `Stream` if the wrapped value is one.
    #[must_use = "futures and streams do nothing unless they are polled"]
    pub struct PollBudget<T> {
        #[pin]
        inner: T,
        guard: FinishGuard<FailOverBudget>,
    }
}

/// Fails at the line of the macro's call, if a poll was over the budget.
struct FailOverBudget {
    message: Option<String>,
    fail: fn(&str),
}

impl OnEnd for FailOverBudget {
    fn end(&mut self, record: AuditRecord, may_panic: bool) {
        let failure = || Failure::of(&record, self.message.as_deref());
        if let Some(failure) = may_panic.then(failure).flatten() {
            (self.fail)(&failure.to_string());
        }
    }
}

impl<F: Future> Future for PollBudget<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let polled = this.guard.poll(cx, |cx| this.inner.poll(cx));
        if polled.is_ready() {
            this.guard.end();
        }
        polled
    }
}

impl<S: Stream> Stream for PollBudget<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let this = self.project();
        let polled = this.guard.poll(cx, |cx| this.inner.poll_next(cx));
        if let Poll::Ready(None) = polled {
            this.guard.end();
        }
        polled
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.inner.size_hint()
    }
}

impl<T> fmt::Debug for PollBudget<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PollBudget").finish_non_exhaustive()
    }
}

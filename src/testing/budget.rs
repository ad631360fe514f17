//! Holding the polls of a future or stream to a budget.

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
use super::finish_guard::{Ending, Held};
use super::origin::Origin;
use super::records::AuditRecord;

/// Holds every poll of a future or stream to a budget: the test fails if one takes longer.
///
/// Held against the budget is a poll's *own* time: what it computed, and what it waited of its own
/// accord. The time in which its thread could have run and the operating system ran another one is not,
/// so that the assertion holds on a machine that the test shares with others; where the system does not
/// account for it (anywhere but on Linux), it is the time by the wall, and the failure says so.
///
/// The first argument is a [`Duration`]; the second a future, of which `.await` gives the output, or a
/// stream, which comes out as a stream of the same items; the rest, if there is any, is a message, as
/// [`assert!`] has it. It is formatted at the call.
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
/// A whole test, in two lines more:
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
/// When the future is done or the stream has ended, or when either is dropped before that, if a poll
/// was over the budget. The message says which poll and how long, how its time divides, its cause and a
/// hint, the stack of the longest one while it ran, and where all of this is. A panic of the future's
/// own is left as it is.
///
/// # Cancel safety
///
/// As cancel safe as what it wraps. The polls that there were are judged when it is dropped.
///
/// # Non-guarantees
///
/// What the future spawns has polls of its own: hold it to the budget where it is spawned. The
/// destructor of the future is not judged. A poll that never ends cannot fail: it is told on the
/// standard error, with its stack, within 5 seconds, and then at doubling times.
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

/// What can be polled: a future ([`ByPoll`]) or a stream ([`ByPollNext`]).
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither a future nor a stream",
    label = "has no polls that could be held to a budget"
)]
pub trait Pollable<By> {
    #[doc(hidden)]
    fn __origin() -> Origin;
}

/// It is polled as a future.
#[doc(hidden)]
#[derive(Debug)]
pub struct ByPoll;

/// It is polled as a stream.
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

/// What the macro expands to. `fail` panics where the macro was called.
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
        held: Held::new(auditor, Judge { message, fail }),
    }
}

pin_project! {
    /// A future or stream whose polls are held to a budget. Made by
    /// [`assert_poll_budget!`](crate::assert_poll_budget).
    ///
    /// It is a `Future` if what it wraps is one, and a `Stream` if that is one.
    #[must_use = "futures and streams do nothing unless they are polled"]
    pub struct PollBudget<T> {
        #[pin]
        inner: T,
        held: Held<Judge>,
    }
}

/// Fails where the macro was called, if a poll was over the budget.
struct Judge {
    message: Option<String>,
    fail: fn(&str),
}

impl Ending for Judge {
    fn end(&mut self, book: AuditRecord, may_panic: bool) {
        let failure = || Failure::of(&book, self.message.as_deref());
        if let Some(failure) = may_panic.then(failure).flatten() {
            (self.fail)(&failure.to_string());
        }
    }
}

impl<F: Future> Future for PollBudget<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let polled = this.held.poll(cx, |cx| this.inner.poll(cx));
        if polled.is_ready() {
            this.held.end();
        }
        polled
    }
}

impl<S: Stream> Stream for PollBudget<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let this = self.project();
        let polled = this.held.poll(cx, |cx| this.inner.poll_next(cx));
        if let Poll::Ready(None) = polled {
            this.held.end();
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

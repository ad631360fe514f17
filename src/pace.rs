//! Floor 3: giving the worker back from inside a long loop.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

/// A pace that gives the worker back at every `n`-th tick.
///
/// For loops whose iterations cost about the same: choose `n` so that `n` of them take well under a
/// millisecond.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let mut sum = 0u64;
/// let mut pace = shotclock::yield_every(10_000);
/// for i in 0..1_000_000u64 {
///     sum = sum.wrapping_add(i * i);
///     pace.tick().await;
/// }
/// assert_eq!(sum, 333_332_833_333_500_000);
/// # }
/// ```
///
/// # Panics
///
/// If `n` is 0: "every zeroth time" has no meaning. `yield_every(1)` yields at every tick.
///
/// # Non-guarantees
///
/// A count bounds no time: if an iteration grows, so does the poll. And a yield ends the poll of the
/// branch that it is in: under `join!` or `FuturesUnordered` the siblings run on in the same poll.
#[track_caller]
pub const fn yield_every(n: u64) -> Pace {
    assert!(
        n > 0,
        "yield_every(0): the number of ticks between two yields must be at least 1"
    );
    Pace { every: n, left: n }
}

/// Counts ticks and says when it is time to give the worker back. Made by [`yield_every`].
#[must_use = "a pace does nothing before its ticks are awaited"]
#[derive(Clone, Debug)]
pub struct Pace {
    every: u64,
    /// Ticks until the next yield, that one included; 0 while it yields. It is kept here and not in
    /// the tick, where it would cost each iteration a store.
    left: u64,
}

impl Pace {
    /// One iteration is done. Await it: if the pace is due, the task yields here, through
    /// [`tokio::task::yield_now`], so that other tasks and the driver of timers and sockets run
    /// first. If it is not due, this is a decrement and a branch.
    ///
    /// Outside of a tokio runtime it yields as well: it wakes its task at once and returns
    /// `Pending`. Inside of [`tokio::task::unconstrained`] it yields too.
    ///
    /// # Cancel safety
    ///
    /// A tick that is dropped before it was polled was not counted. One that is dropped while it
    /// yields leaves the pace yielding: the next tick ends that, and the yield after it is `n` ticks
    /// away.
    #[inline]
    pub fn tick(&mut self) -> Tick<'_> {
        Tick { pace: self }
    }
}

/// The future of [`Pace::tick`].
#[must_use = "a tick counts only when it is awaited"]
pub struct Tick<'p> {
    pace: &'p mut Pace,
}

impl Future for Tick<'_> {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.pace.left > 1 {
            self.pace.left -= 1;
            return Poll::Ready(());
        }
        self.pace.due(cx)
    }
}

impl Pace {
    /// The last of `every` ticks: yields when it is polled first, and is done when it is polled
    /// again.
    #[cold]
    #[inline(never)]
    fn due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let first = std::mem::replace(&mut self.left, 0) > 0;
        if first && give_back(cx).is_pending() {
            return Poll::Pending;
        }
        self.left = self.every;
        Poll::Ready(())
    }
}

/// Asks tokio to wake this task after the others, and after the driver.
///
/// `yield_now` is an `async fn`, whose future cannot be named, so it cannot be a field. It need not
/// be: the first poll does all the work (it defers the waker), and the second would only say that
/// the first was made, which [`Pace::left`](Pace) remembers.
#[cold]
#[inline(never)]
fn give_back(cx: &mut Context<'_>) -> Poll<()> {
    pin!(tokio::task::yield_now()).poll(cx)
}

impl fmt::Debug for Tick<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tick").field("pace", &self.pace).finish()
    }
}

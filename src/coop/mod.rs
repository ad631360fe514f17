//! Floor 3: giving the worker back from inside a long loop.

mod iter;
mod rule;
mod slice;
mod stream;

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

pub use iter::{Iter, iter};
pub use rule::{Count, Rule};
pub use slice::Slice;
pub use stream::{Paced, YieldExt};

/// A pace that gives the worker back at every `n`-th tick.
///
/// For loops whose iterations cost about the same: choose `n` so that `n` of them take well under a
/// millisecond. Where their cost is not known, or changes, [`yield_after`] goes by time.
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
pub fn yield_every(n: u64) -> Pace<Count> {
    assert!(
        n > 0,
        "yield_every(0): the number of ticks between two yields must be at least 1"
    );
    Pace::new(Count { every: n }, n)
}

/// A pace that gives the worker back when the task has had it for `slice`.
///
/// For loops whose iterations cost what they like. Between two yields the clock is read a handful of
/// times: the pace learns how many ticks fit into a part of the slice. An iteration that suddenly
/// takes long (a slice, or a millisecond if that is more) is noticed at the tick after it all the
/// same, because a thread of the crate's own says so often that time has passed. It sleeps while no
/// pace is in use, and costs some 1.5 % of a core while one is.
///
/// Inside a [watched](crate::WatchExt::watched) future the time counts from the start of the
/// outermost watched poll in flight: what is bounded is the poll of the task. So the siblings under
/// `join_all`, `select!` or `FuturesUnordered` give the worker back together, wherever the time went,
/// and one of them whose turn comes when the slice is used up passes it on without an iteration.
/// Outside of a watched future it counts from this pace's own last yield (or its first tick).
///
/// Slices of 100 µs to 1 ms are good for most services. A slice of zero yields at every tick; one
/// beyond 584 years never does.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let mut words = Vec::new();
/// let mut pace = shotclock::yield_after(Duration::from_micros(500));
/// for line in include_str!("../../Cargo.toml").lines() {
///     words.extend(line.split_whitespace()); // a long line takes longer
///     pace.tick().await;
/// }
/// assert!(words.contains(&"\"shotclock\""));
/// # }
/// ```
///
/// # Non-guarantees
///
/// One iteration is not interrupted: a poll takes up to the slice and one iteration. Where the
/// operating system does not run that thread in time (a host with every processor taken), an iteration
/// that suddenly takes long is noticed later, at the next reading that was planned; the polls after it
/// are short again.
///
/// Siblings of one task are not served in turns: the first one in the order of the polls has most of
/// the slice until it is done, as it is with tokio's own budget. The others make an iteration now and
/// then. What shall run side by side belongs in tasks of its own.
pub fn yield_after(slice: Duration) -> Pace<Slice> {
    // The first tick reads the clock.
    Pace::new(Slice::new(slice), 1)
}

/// Says when it is time to give the worker back. Made by [`yield_every`] and [`yield_after`].
///
/// A function that takes either is generic: `async fn crunch(pace: &mut Pace<impl Rule>)`.
#[must_use = "a pace does nothing before its ticks are awaited"]
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Pace<R = Count> {
    /// How far ahead of the rule's floor it is: a tick takes one off, and a floor that jumps up
    /// overtakes it, so that one comparison notices both. It is kept here and not in the tick, where
    /// it would cost each iteration a store.
    ahead: u64,
    /// The floor at the last look, and how many ticks were to come.
    base: u64,
    armed: u64,
    stage: Stage,
    rule: R,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Running,
    /// It is time to yield.
    Due,
    /// A yield has returned `Pending`.
    Yielding,
}

impl<R: Rule> Pace<R> {
    fn new(rule: R, ticks: u64) -> Self {
        let mut pace = Self {
            ahead: 0,
            base: 0,
            armed: 0,
            stage: Stage::Running,
            rule,
        };
        pace.arm(Some(ticks));
        pace
    }

    /// One iteration is done. Await it: if the pace is due, the task yields here, through
    /// [`tokio::task::yield_now`], so that other tasks and the driver of timers and sockets run
    /// first. If it is not due, this is a load, a decrement and a branch.
    ///
    /// Outside of a tokio runtime it yields as well: it wakes its task at once and returns
    /// `Pending`. Inside of [`tokio::task::unconstrained`], on a current-thread runtime and in a
    /// `LocalSet` it yields as everywhere.
    ///
    /// # Cancel safety
    ///
    /// A tick that is dropped before it was polled was not counted. One that is dropped while it
    /// yields leaves the pace yielding: the next tick ends that, and the yield after it is `n` ticks,
    /// or a slice, away.
    #[inline]
    pub fn tick(&mut self) -> Tick<'_, R> {
        Tick { pace: self }
    }

    /// One iteration is done, in code that cannot await here. Returns whether the pace is due, and
    /// then goes on to do so until somebody awaits [`yield_now`](Self::yield_now) or
    /// [`tick`](Self::tick).
    ///
    /// # Examples
    ///
    /// ```
    /// use shotclock::coop::{Pace, Rule};
    /// use std::ops::Range;
    /// use std::time::Duration;
    ///
    /// /// Works until it is done, or has had the worker for long enough.
    /// fn step(numbers: &mut Range<u64>, sum: &mut u64, pace: &mut Pace<impl Rule>) {
    ///     for number in numbers {
    ///         *sum += number;
    ///         if pace.is_due() {
    ///             break;
    ///         }
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let (mut numbers, mut sum) = (0..100_000, 0);
    /// let mut pace = shotclock::yield_after(Duration::from_micros(500));
    /// while !numbers.is_empty() {
    ///     step(&mut numbers, &mut sum, &mut pace);
    ///     pace.yield_now().await;
    /// }
    /// assert_eq!(sum, 4_999_950_000);
    /// # }
    /// ```
    #[inline]
    pub fn is_due(&mut self) -> bool {
        !self.is_early() && self.look()
    }

    /// Yields here, whether the pace is due or not; the count, or the slice, begins anew.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it was polled, it does nothing. Dropped while it yields, it leaves the pace
    /// yielding: the next tick ends that.
    pub fn yield_now(&mut self) -> YieldNow<'_, R> {
        YieldNow {
            pace: self,
            has_yielded: false,
        }
    }

    /// Counts a tick, if that is all there is to do about it.
    #[inline]
    fn is_early(&mut self) -> bool {
        let is_early = self.ahead > R::floor();
        if is_early {
            self.ahead -= 1;
        }
        is_early
    }

    /// A tick that may be the last one: whether the pace is due.
    #[cold]
    #[inline(never)]
    fn look(&mut self) -> bool {
        match self.stage {
            Stage::Due => return true,
            // The yield was cancelled, but the worker was given back.
            Stage::Yielding => return self.resume(),
            Stage::Running => {}
        }
        let ticks = self.base + self.armed - self.ahead;
        let next = self.rule.look(ticks);
        self.arm(next)
    }

    /// The worker was given back, and this task has it again. Whether it must be given back at once,
    /// because the siblings have used it up.
    fn resume(&mut self) -> bool {
        let next = self.rule.resume();
        self.arm(next)
    }

    /// So many ticks until the next look; without them the pace is due.
    fn arm(&mut self, ticks: Option<u64>) -> bool {
        self.base = R::floor();
        self.armed = ticks.unwrap_or(0);
        // The last of them is not early.
        self.ahead = self.base + self.armed.saturating_sub(1);
        self.stage = match ticks {
            Some(_) => Stage::Running,
            None => Stage::Due,
        };
        ticks.is_none()
    }

    #[inline]
    fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_early() {
            return Poll::Ready(());
        }
        self.poll_look(cx)
    }

    #[cold]
    #[inline(never)]
    fn poll_look(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.look() {
            return Poll::Ready(());
        }
        self.yield_worker(cx)
    }

    /// Asks tokio to wake this task after the others, and after the driver.
    ///
    /// `yield_now` is an `async fn`, whose future cannot be named, so it cannot be a field. It need
    /// not be: the first poll does all the work (it defers the waker), and the second would only say
    /// that the first was made, which [`Pace::stage`](Pace) remembers.
    fn yield_worker(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.arm(None);
        self.stage = Stage::Yielding;
        self.rule.leave();
        pin!(tokio::task::yield_now()).poll(cx)
    }
}

/// The future of [`Pace::tick`].
#[must_use = "a tick counts only when it is awaited"]
pub struct Tick<'p, R = Count> {
    pace: &'p mut Pace<R>,
}

impl<R: Rule> Future for Tick<'_, R> {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.pace.poll_tick(cx)
    }
}

impl<R: fmt::Debug> fmt::Debug for Tick<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tick").field("pace", &self.pace).finish()
    }
}

/// The future of [`Pace::yield_now`].
#[must_use = "it yields only when it is awaited"]
#[derive(Debug)]
pub struct YieldNow<'p, R = Count> {
    pace: &'p mut Pace<R>,
    has_yielded: bool,
}

impl<R: Rule> Future for YieldNow<'_, R> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if !std::mem::replace(&mut self.has_yielded, true) {
            return self.pace.yield_worker(cx);
        }
        // If the siblings have used the slice up, the next tick will say so.
        self.pace.resume();
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By a beat of 1,000: due at the fourth look.
    struct Looks(Vec<u64>);

    impl rule::sealed::Rule for Looks {
        fn floor() -> u64 {
            1_000
        }

        fn look(&mut self, ticks: u64) -> Option<u64> {
            self.0.push(ticks);
            (self.0.len() < 4).then_some(5)
        }

        fn resume(&mut self) -> Option<u64> {
            Some(5)
        }

        fn leave(&mut self) {}
    }

    #[test]
    fn it_looks_when_so_many_ticks_are_done_and_not_before() {
        let mut pace = Pace::new(Looks(Vec::new()), 3);
        let due = (1..).find(|_| pace.is_due());
        assert_eq!(due, Some(3 + 5 + 5 + 5));
        assert_eq!(pace.rule.0, [3, 5, 5, 5]);
        // It stays due, without another look.
        assert!(pace.is_due());
        assert_eq!(pace.rule.0.len(), 4);
    }
}

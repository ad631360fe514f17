//! Floor 3: yields inside long loops, so that other tasks run.

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

/// Makes a pace that yields at every `n`-th tick.
///
/// Use it for loops whose iterations have about the same cost. Choose `n` so that `n` iterations take well under a
/// millisecond. If the cost is unknown or varies, use [`yield_after`].
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
/// If `n` is 0. `yield_every(1)` yields at every tick.
///
/// # Non-guarantees
///
/// A count does not bound time: a poll with slower iterations is longer. A yield ends only the branch that it is in.
/// Under `join!` or `FuturesUnordered`, the siblings continue in the same poll.
#[track_caller]
pub fn yield_every(n: u64) -> Pace<Count> {
    assert!(
        n > 0,
        "yield_every(0): the number of ticks between two yields must be at least 1"
    );
    Pace::new(Count { every: n }, n)
}

/// Makes a pace that yields when the task has run for `slice`.
///
/// Use it for loops whose iterations have any cost. The pace reads the clock about four times in a slice, because it
/// measures how many ticks fit into a part of the slice. It also notices a single slow iteration, of a slice or of a
/// millisecond if that is more, at the next tick. For that, a thread of the crate advances a counter. The thread sleeps
/// while no pace is in use, and costs about 1.5 % of a core while one is.
///
/// Inside a [watched](crate::WatchExt::watched) future, the time counts from the start of the outermost watched poll in
/// flight. So the pace bounds the poll of the task. The siblings under `join_all`, `select!` or `FuturesUnordered` yield
/// together, whichever of them used the time. A sibling that runs after the slice is used up yields without an iteration.
/// Outside a watched future, the time counts from the last yield of this pace, or from its first tick.
///
/// Slices of 100 µs to 1 ms are good for most services. A slice of zero yields at every tick, and one beyond 584 years
/// never yields.
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
///     words.extend(line.split_whitespace());
///     pace.tick().await;
/// }
/// assert!(words.contains(&"\"shotclock\""));
/// # }
/// ```
///
/// # Non-guarantees
///
/// The pace does not interrupt an iteration, so a poll takes up to the slice and one iteration. On a host with all CPUs
/// busy, the thread with the counter may run late. Then the pace notices a slow iteration at its next planned reading.
///
/// Siblings in one task do not take turns. The first one in the order of the polls has most of the slice until it is done,
/// as with tokio's own budget. The others make an iteration now and then. Use a task for each piece of work that must run
/// concurrently.
pub fn yield_after(slice: Duration) -> Pace<Slice> {
    // The first tick reads the clock.
    Pace::new(Slice::new(slice), 1)
}

/// Decides at each tick whether to yield. [`yield_every`] and [`yield_after`] make it.
///
/// A function that takes either is generic: `async fn crunch(pace: &mut Pace<impl Rule>)`.
#[must_use = "a pace does nothing before its ticks are awaited"]
#[derive(Clone, Debug)]
pub struct Pace<R = Count> {
    /// The ticks until the next check, added to the rule's floor. A tick subtracts one, and a floor that increases
    /// overtakes the value. So one comparison notices both. A field of [`Tick`] would cost each iteration a store.
    ahead: u64,
    /// The floor at the last check.
    base: u64,
    /// The ticks from the last check to the next one.
    armed: u64,
    stage: YieldStage,
    rule: R,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum YieldStage {
    Running,
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
            stage: YieldStage::Running,
            rule,
        };
        pace.arm(Some(ticks));
        pace
    }

    /// Counts an iteration, and yields if the pace is due. Await the result.
    ///
    /// It yields through [`tokio::task::yield_now`], so other tasks and the driver of timers and sockets run first. If the
    /// pace is not due, a tick is a load, a decrement and a branch.
    ///
    /// It also yields in [`tokio::task::unconstrained`], on a current-thread runtime and in a `LocalSet`. Outside a tokio
    /// runtime it wakes its task at once and returns `Pending`.
    ///
    /// # Cancel safety
    ///
    /// A tick that is dropped before its first poll is not counted. If a tick is dropped while it yields, the next tick
    /// ends that yield. The yield after it is `n` ticks, or a slice, away.
    #[inline]
    pub fn tick(&mut self) -> Tick<'_, R> {
        Tick { pace: self }
    }

    /// Counts an iteration, in code that cannot await here. Returns whether the pace is due.
    ///
    /// It then returns true until the task awaits [`yield_now`](Self::yield_now) or [`tick`](Self::tick).
    ///
    /// # Examples
    ///
    /// ```
    /// use shotclock::coop::{Pace, Rule};
    /// use std::ops::Range;
    /// use std::time::Duration;
    ///
    /// /// Works until the end of the range, or until the pace is due.
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
        !self.is_early() && self.check()
    }

    /// Yields, whether the pace is due or not. Then the count or the slice begins again.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its first poll, it does nothing. If it is dropped while it yields, the next tick ends that yield.
    pub fn yield_now(&mut self) -> YieldNow<'_, R> {
        YieldNow {
            pace: self,
            has_yielded: false,
        }
    }

    /// Counts a tick if no check is due. Returns whether it did.
    #[inline]
    fn is_early(&mut self) -> bool {
        let is_early = self.ahead > R::floor();
        if is_early {
            self.ahead -= 1;
        }
        is_early
    }

    /// Returns whether the pace is due, at a tick that may be the last one.
    #[cold]
    #[inline(never)]
    fn check(&mut self) -> bool {
        match self.stage {
            YieldStage::Due => return true,
            // The yield was cancelled after it had returned `Pending`.
            YieldStage::Yielding => return self.resume(),
            YieldStage::Running => {}
        }
        let ticks = self.base + self.armed - self.ahead;
        let next = self.rule.check(ticks);
        self.arm(next)
    }

    /// Continues after a yield. Returns whether to yield again at once, because the siblings have used up the slice.
    fn resume(&mut self) -> bool {
        let next = self.rule.resume();
        self.arm(next)
    }

    /// Sets the ticks until the next check. With `None` the pace is due.
    fn arm(&mut self, ticks: Option<u64>) -> bool {
        self.base = R::floor();
        self.armed = ticks.unwrap_or(0);
        // The last of them is a check.
        self.ahead = self.base + self.armed.saturating_sub(1);
        self.stage = match ticks {
            Some(_) => YieldStage::Running,
            None => YieldStage::Due,
        };
        ticks.is_none()
    }

    #[inline]
    fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_early() {
            return Poll::Ready(());
        }
        self.poll_check(cx)
    }

    #[cold]
    #[inline(never)]
    fn poll_check(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.check() {
            return Poll::Ready(());
        }
        self.yield_worker(cx)
    }

    /// Yields: tokio wakes this task after the other ones, and after the driver.
    ///
    /// The future of `yield_now` has no name, so it cannot be a field. The first poll defers the waker, which is all of its
    /// work. A second poll would only return `Ready`, which [`Pace::stage`](Pace) does here.
    fn yield_worker(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.arm(None);
        self.stage = YieldStage::Yielding;
        self.rule.leave();
        pin!(tokio::task::yield_now()).poll(cx)
    }
}

/// Yields if a pace is due. [`Pace::tick`] makes it.
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

/// Yields once. [`Pace::yield_now`] makes it.
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
        // If the siblings have used up the slice, the next tick yields.
        self.pace.resume();
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a pace due at the fourth check. Records the ticks of each.
    struct FourChecks(Vec<u64>);

    impl rule::sealed::Rule for FourChecks {
        fn floor() -> u64 {
            1_000
        }

        fn check(&mut self, ticks: u64) -> Option<u64> {
            self.0.push(ticks);
            (self.0.len() < 4).then_some(5)
        }

        fn resume(&mut self) -> Option<u64> {
            Some(5)
        }

        fn leave(&mut self) {}
    }

    #[test]
    fn is_due_checks_the_rule_after_the_given_ticks_only() {
        let mut pace = Pace::new(FourChecks(Vec::new()), 3);
        let due = (1..).find(|_| pace.is_due());
        assert_eq!(due, Some(3 + 5 + 5 + 5));
        assert_eq!(pace.rule.0, [3, 5, 5, 5]);
        // It stays due, without another check.
        assert!(pace.is_due());
        assert_eq!(pace.rule.0.len(), 4);
    }
}

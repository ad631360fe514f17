//! One audit at work: every poll goes through it.

use std::panic::Location;
use std::task::{Context, Poll};
use std::time::Duration;

use super::book::{Book, Ended};
use super::lookout::{InSight, Lookout, PLACE};
use super::origin::Origin;
use super::relay::Relay;
use super::times::Stopwatch;

/// Unless a budget is named: the default of a watchdog.
pub(super) const DEFAULT_BUDGET: Duration = Duration::from_millis(10);

/// An audit under way.
pub(super) struct Auditor {
    book: Book,
    lookout: Lookout,
    relay: Relay,
}

impl Auditor {
    /// The sentinel is to look at polls that are over the budget.
    pub(super) fn new(
        origin: Origin,
        location: &'static Location<'static>,
        budget: Duration,
    ) -> Self {
        Self {
            book: Book::new(origin, location, budget),
            lookout: Lookout::new(budget),
            relay: Relay::default(),
        }
    }

    /// Names another budget.
    pub(super) fn aim(&mut self, budget: Duration) {
        self.book.budget = budget;
        self.lookout = Lookout::new(budget);
    }

    /// Makes one poll. Inlined, so that the stack of the poll begins in the function that calls this.
    #[inline(always)]
    pub(super) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let waker = self.relay.waker(cx.waker());
        let mut turn = self.begin();
        let polled = poll(&mut Context::from_waker(&waker));
        turn.yielded = polled.is_pending();
        polled
    }

    /// Times a stretch that is no poll, as if it were one.
    #[cfg(feature = "tower")]
    #[inline(always)]
    pub(super) fn run<T>(&mut self, stretch: impl FnOnce() -> T) -> T {
        let _turn = self.begin();
        stretch()
    }

    #[inline(always)]
    fn begin(&mut self) -> Turn<'_> {
        let stopwatch = Stopwatch::start(&PLACE.clock);
        let in_sight = self.lookout.begin(self.book.location, stopwatch.start);
        Turn {
            book: &mut self.book,
            stopwatch,
            in_sight,
            yielded: false,
            was_panicking: std::thread::panicking(),
        }
    }

    /// What was written down, when there is nothing more to come.
    pub(super) fn close(self) -> Book {
        let mut book = self.book;
        book.wake_ups = self.relay.wake_ups();
        book
    }
}

/// A poll that runs. It ends where it is dropped, by a panic as well.
struct Turn<'a> {
    book: &'a mut Book,
    stopwatch: Stopwatch,
    in_sight: InSight,
    yielded: bool,
    was_panicking: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let end = PLACE.clock.raw();
        self.in_sight.withdraw();
        // The accounts first: they are of this moment.
        let times = self.stopwatch.stop(&PLACE.clock, end);
        let seen = self.in_sight.seen(end);
        let ended = Ended {
            times: times.with_disturbance(seen.disturbed),
            yielded: self.yielded,
            panicked: std::thread::panicking() && !self.was_panicking,
            start: self.stopwatch.start,
            end,
        };
        self.book.enter(&ended, seen);
    }
}

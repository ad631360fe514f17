//! Scenarios over the whole crate under a mocked clock, so every duration is exact.

mod causes;
mod clock_jumps;
mod endings;
mod nested;
mod pacing;
mod rate_limit;
mod reporting;
mod stalls;
mod ticked;
#[cfg(not(miri))]
mod type_names;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::clock::{Clock, MockTime};
use crate::sync::IgnorePoison as _;
use crate::{SlowPoll, Watch, Watchdog, WatchdogBuilder};

pub(crate) const MS: Duration = Duration::from_millis(1);
/// The longest wait for a reporter's thread before a test fails: enough for a busy machine. Under mutation testing, many tests
/// wait in vain.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(match cfg!(shotclock_mutants) {
    true => 5,
    false => 60,
});

/// A watchdog under a mocked clock, with its reports.
pub(crate) struct Scene {
    pub(crate) watchdog: Watchdog,
    clock: Clock,
    time: Arc<MockTime>,
    reports: Arc<Mutex<Vec<SlowPoll>>>,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self::with(|builder| builder)
    }

    pub(crate) fn with(set_up: impl FnOnce(WatchdogBuilder) -> WatchdogBuilder) -> Self {
        let (clock, time) = Clock::mock();
        let reports = Arc::<Mutex<Vec<SlowPoll>>>::default();
        let collect = {
            let reports = Arc::clone(&reports);
            move |slow: &SlowPoll| reports.lock().unwrap().push(slow.clone())
        };
        let builder = Watchdog::builder().without_tracing();
        let builder = builder.clock(clock.clone()).on_slow_poll(collect);
        Self {
            clock,
            watchdog: set_up(builder).build().unwrap(),
            time,
            reports,
        }
    }

    pub(crate) fn watch(&self, name: &'static str) -> Watch {
        self.watchdog.watch(name)
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.time.increment(time);
    }

    /// Returns a future that takes `time` in its only poll.
    pub(crate) fn takes(&self, time: Duration) -> impl Future<Output = ()> {
        poll_fn(move |_| {
            self.pass(time);
            Poll::Ready(())
        })
    }

    /// Returns all reports so far.
    pub(crate) fn reports(&self) -> Vec<SlowPoll> {
        assert!(self.watchdog.flush(MAX_WAIT), "the reporter did not come");
        let reports = self.reports.lock();
        std::mem::take(&mut reports.ignore_poison())
    }
}

/// Polls a future to its end on this thread, without a runtime.
pub(crate) fn run<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = poll_once(future.as_mut()) {
            return output;
        }
    }
}

pub(crate) fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// A value whose destructor takes `time`.
pub(crate) struct SlowToDrop<'s>(pub(crate) &'s Scene, pub(crate) Duration);

impl Drop for SlowToDrop<'_> {
    fn drop(&mut self) {
        self.0.pass(self.1);
    }
}

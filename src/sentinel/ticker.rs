//! The thread that publishes ticks, and that stands in for the sentinel where it is held up.
//!
//! A look can take long, whatever the reason: the ticker looks at nothing, so that time goes on. It is a
//! liveness as well (see [`liveness`](crate::liveness)), and judges the polls that wait for a look which does
//! not come. It sleeps while the sentinel sleeps.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use super::sleep_monitor::SleepMonitor;
use crate::background_thread::BackgroundThread;
use crate::catch_panic::catch_panic;
use crate::clock::{Clock, nanos_of};
use crate::coarse_clock::COARSE_CLOCK;
use crate::dispatch;
use crate::error::Error;
use crate::liveness::{SENTINEL, TICKER};
use crate::procfs;
use crate::slot::SENTINEL_PARKER;
use crate::sync::IgnorePoison as _;
use crate::watch::{shortest_budget, tick_nanos};

static THREAD: BackgroundThread = BackgroundThread::new("shotclock-ticks");

/// How often the ticker gives a sign of life at most while no watch goes by ticks, in nanoseconds. A sentinel
/// that is held up for longer is not taken for a suspended process. Fifty wake-ups a second cost less than
/// a thousandth of a core.
const SHORTEST_NAP: u64 = 20_000_000;

/// How many nanoseconds the sentinel's sign of life may be overdue before the ticker stands in. Longer than
/// looks take that are not held up.
const HELD_UP: u64 = 100_000_000;

/// How old a tick may be, in ticks, before the sentinel publishes one itself: a timer may be late by one.
const OLD_TICK: u64 = 2;

/// Whether there are ticks. Who ticks holds it: one thread at a time, as [`COARSE_CLOCK`] wants it.
static TICKING: Mutex<bool> = Mutex::new(false);

/// Starts the thread unless it runs. It runs as long as the process.
pub(super) fn start(clock: &Clock) -> Result<(), Error> {
    let clock = clock.clone();
    THREAD.start(move || Ticker::new(clock).run())
}

/// `None` if the other thread is just ticking: then there is a tick.
fn ticking() -> Option<MutexGuard<'static, bool>> {
    TICKING.try_lock().ignore_poison()
}

/// A tick, if anybody goes by them and the sentinel is up.
fn tick(clock: &Clock) {
    let Some(ticking) = ticking().filter(|ticking| **ticking) else {
        return;
    };
    match tick_nanos() {
        Some(_) => COARSE_CLOCK.publish(|| clock.raw()),
        None => COARSE_CLOCK.stop(|| clock.raw()),
    }
    drop(ticking);
}

/// The sentinel is up: it ticks itself where the ticker does not, and wakes it where it sleeps for longer
/// than it should.
pub(super) fn keep_ticking(clock: &Clock) {
    if let Some(mut ticking) = ticking() {
        *ticking = true;
    }
    let is_old = |tick: u64| match COARSE_CLOCK.latest() {
        Some(latest) => clock.nanos_between(latest, clock.raw()) > tick * OLD_TICK,
        None => true,
    };
    if tick_nanos().is_none_or(is_old) {
        tick(clock);
    }
    if TICKER.nap() > nap_nanos() {
        TICKER.wake();
    }
}

/// The sentinel lies down: who begins later shall not go by a tick of long ago. False if that cannot be
/// promised at this moment.
pub(super) fn stop_ticking(clock: &Clock) -> bool {
    let Some(mut ticking) = ticking() else {
        return false;
    };
    *ticking = false;
    COARSE_CLOCK.stop(|| clock.raw());
    true
}

/// How long the ticker naps at present, in nanoseconds.
pub(super) fn nap_nanos() -> u64 {
    tick_nanos().unwrap_or_else(|| nanos_of(shortest_budget()).max(SHORTEST_NAP))
}

/// The thread's own state.
struct Ticker {
    clock: Clock,
    sleep_monitor: SleepMonitor,
    /// When it last got up, as a raw reading of the clock.
    up_since: u64,
}

impl Ticker {
    fn new(clock: Clock) -> Self {
        Self {
            sleep_monitor: SleepMonitor::new(clock.clone(), &TICKER, &SENTINEL),
            up_since: clock.raw(),
            clock,
        }
    }

    fn run(mut self) {
        loop {
            // Nothing in there panics. If something did, the next turn would be as good.
            catch_panic(|| self.turn());
        }
    }

    fn turn(&mut self) {
        if SENTINEL_PARKER.is_parked() {
            self.sleep();
        }
        self.sleep_monitor.nap(Duration::from_nanos(nap_nanos()));
        tick(&self.clock);
        if self.is_sentinel_held_up() {
            dispatch::run_deferred();
        }
    }

    /// Until the sentinel has been roused, and wakes it; or a poll is left to a sentinel that is not up.
    fn sleep(&mut self) {
        self.sleep_monitor.will_sleep();
        while SENTINEL_PARKER.is_parked() {
            std::thread::park();
        }
        self.sleep_monitor.awake();
        self.up_since = self.clock.raw();
    }

    /// Whether the sentinel does not come. One that waits for a processor will: the polls of which it is
    /// to say whether they waited for one as well are left to it.
    fn is_sentinel_held_up(&self) -> bool {
        let now = self.clock.raw();
        let overdue = match SENTINEL.has_no_timer() {
            // It was roused, if at all, after the ticker got up.
            true if SENTINEL_PARKER.is_parked() => 0,
            true => self.clock.nanos_between(self.up_since, now),
            false => SENTINEL.overdue(&self.clock, now),
        };
        let is_runnable = || SENTINEL.thread().and_then(procfs::state) == Some('R');
        overdue > HELD_UP && !is_runnable()
    }
}

//! The thread that publishes ticks, and that replaces a sentinel that is held up.
//!
//! A scan can take long for many reasons. The ticker scans nothing, so the coarse clock advances. The ticker also gives
//! signs of life ([`liveness`](crate::liveness)), and runs the deferred jobs if no scan comes. It sleeps while the sentinel
//! is parked.

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

/// The shortest sleep of the ticker while no watch is ticked. A sentinel that is held up for longer is not taken for a
/// suspended process. 50 wake-ups a second cost less than a thousandth of a core.
const MIN_SLEEP_NANOS: u64 = 20_000_000;

/// The time by which the sentinel's sign of life is overdue when the ticker replaces it: longer than a scan takes that is
/// not held up.
const HELD_UP_NANOS: u64 = 100_000_000;

/// The age of a tick, in ticks, at which the sentinel publishes one itself. A timer may be late by one tick.
const MAX_TICK_AGE_TICKS: u64 = 2;

/// Whether there are ticks. A thread holds the lock while it publishes, because [`COARSE_CLOCK`] takes one writer.
static TICKING: Mutex<bool> = Mutex::new(false);

/// Starts the thread unless it runs. It runs as long as the process.
pub(super) fn start(clock: &Clock) -> Result<(), Error> {
    let clock = clock.clone();
    THREAD.start(move || Ticker::new(clock).run())
}

/// Returns `None` while the other thread publishes a tick.
fn ticking() -> Option<MutexGuard<'static, bool>> {
    TICKING.try_lock().ignore_poison()
}

/// Publishes a tick if a watch is ticked and the sentinel runs.
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

/// Turns ticks on. The sentinel calls this before each scan: it publishes a tick if the ticker is late, and ends a sleep of
/// the ticker that is too long.
pub(super) fn keep_ticking(clock: &Clock) {
    if let Some(mut ticking) = ticking() {
        *ticking = true;
    }
    let is_old = |tick: u64| match COARSE_CLOCK.latest() {
        Some(latest) => clock.nanos_between(latest, clock.raw()) > tick * MAX_TICK_AGE_TICKS,
        None => true,
    };
    if tick_nanos().is_none_or(is_old) {
        tick(clock);
    }
    if TICKER.sleep_nanos() > sleep_nanos() {
        TICKER.wake();
    }
}

/// Turns ticks off before the sentinel parks, so that no later poll starts from an old tick. Returns false if the ticker
/// publishes at this moment.
pub(super) fn stop_ticking(clock: &Clock) -> bool {
    let Some(mut ticking) = ticking() else {
        return false;
    };
    *ticking = false;
    COARSE_CLOCK.stop(|| clock.raw());
    true
}

/// Returns the length of the ticker's sleeps now, in nanoseconds.
pub(super) fn sleep_nanos() -> u64 {
    tick_nanos().unwrap_or_else(|| nanos_of(shortest_budget()).max(MIN_SLEEP_NANOS))
}

/// The thread's own state.
struct Ticker {
    clock: Clock,
    sleep_monitor: SleepMonitor,
    /// The end of its latest sleep, as a raw clock reading.
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
            // Nothing in `turn` panics. If it did, the next turn would go on.
            catch_panic(|| self.turn());
        }
    }

    fn turn(&mut self) {
        if SENTINEL_PARKER.is_parked() {
            self.park();
        }
        self.sleep_monitor
            .sleep(Duration::from_nanos(sleep_nanos()));
        tick(&self.clock);
        if self.is_sentinel_held_up() {
            dispatch::run_deferred();
        }
    }

    /// Parks until the sentinel runs again and wakes it, or a job is deferred.
    fn park(&mut self) {
        self.sleep_monitor.will_park();
        while SENTINEL_PARKER.is_parked() {
            std::thread::park();
        }
        self.sleep_monitor.after_park();
        self.up_since = self.clock.raw();
    }

    /// Returns whether the sentinel is held up. One that waits for a processor is not: it will come, and knows best whether
    /// the polls waited for one too.
    fn is_sentinel_held_up(&self) -> bool {
        let now = self.clock.raw();
        let overdue = match SENTINEL.has_no_timer() {
            // A poll woke the sentinel, if at all, after the ticker's own sleep ended.
            true if SENTINEL_PARKER.is_parked() => 0,
            true => self.clock.nanos_between(self.up_since, now),
            false => SENTINEL.overdue(&self.clock, now),
        };
        let is_runnable = || SENTINEL.thread().and_then(procfs::state) == Some('R');
        overdue > HELD_UP_NANOS && !is_runnable()
    }
}

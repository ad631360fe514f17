//! Floor 5: the thread that looks at polls while they run.
//!
//! One for the process, with another one beside it that publishes the time ([`ticker`]). It wakes where a poll in flight is about to pass its budget, and otherwise as
//! often as the shortest budget in use, so that no poll can begin and pass its budget unseen. When
//! nothing has happened for a while it lies down until the next poll rouses it ([`SENTINEL_PARKER`]).
//!
//! It meets the hot path at the slot, and never imports it.

mod capabilities;
mod diagnose;
mod escalation;
#[cfg(all(
    any(test, fuzzing),
    not(any(shotclock_loom, miri)),
    target_os = "linux",
    target_arch = "x86_64",
    feature = "page",
    feature = "prometheus",
    feature = "testing"
))]
pub(crate) mod fuzzing;
mod known_frame;
mod poll_breakpoints;
mod poll_site;
mod restarting_callers;
mod run_state;
mod same_poll;
mod sample_budget;
mod scan;
mod self_test;
mod sleep_monitor;
mod stack_sampler;
mod stalled_poll;
mod ticker;
mod unwind_loader;
mod worker_report;
mod worker_scan;
mod worker_state;

#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod modules;
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod unwind;

#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
#[path = "no_unwind.rs"]
mod unwind;

#[cfg(target_os = "linux")]
mod syscalls;
#[cfg(not(target_os = "linux"))]
#[path = "no_syscalls.rs"]
mod syscalls;

use std::time::Duration;

use crate::background_thread::BackgroundThread;
use crate::catch_panic::catch_panic;
use crate::cgroup;
use crate::clock::Clock;
use crate::dispatch;
use crate::error::Error;
use crate::flight_record;
use crate::liveness::{SENTINEL, TICKER};
use crate::runtime;
use crate::slot::SENTINEL_PARKER;
use crate::stolen_time::STOLEN_TIME;
use crate::watch::{Stacks, shortest_budget};
pub use capabilities::{Capabilities, Capability};
pub(crate) use scan::Scanner;
use sleep_monitor::SleepMonitor;
use worker_scan::{ScanTools, WorkerScans};

static THREAD: BackgroundThread = BackgroundThread::new("shotclock-watch");

/// For so long nothing must have happened before the sentinel lies down: rousing it is a system call
/// on somebody's hot path, and a poll every few milliseconds must not make one each.
const QUIET: Duration = Duration::from_millis(50);

/// Starts the sentinel and its ticker if they do not run yet.
pub(crate) fn start(clock: &Clock, stacks: Stacks, signal: i32) -> Result<(), Error> {
    if !clock.is_real() {
        return Ok(());
    }
    flight_record::prepare();
    if stacks != Stacks::Never {
        stack_sampler::install(signal);
    }
    ticker::start(clock)?;
    let clock = clock.clone();
    THREAD.start(move || Sentinel::new(&clock).run())
}

/// Whether stacks can be taken here; an error says why not. It waits until that was tried out, which
/// takes some milliseconds once in a process.
pub(crate) fn can_take_stacks() -> Result<(), String> {
    stack_sampler::is_installed().and_then(|()| self_test::outcome())
}

/// The thread's own state.
struct Sentinel {
    scanner: Scanner,
    /// Of the workers of guarded runtimes.
    scans: WorkerScans,
    sleep_monitor: SleepMonitor,
    /// For how long nothing has happened.
    quiet: Duration,
}

impl Sentinel {
    fn new(clock: &Clock) -> Self {
        Self {
            scanner: Scanner::new(clock.clone()),
            scans: WorkerScans::default(),
            sleep_monitor: SleepMonitor::new(clock.clone(), &SENTINEL, &TICKER),
            quiet: Duration::ZERO,
        }
    }

    fn run(mut self) {
        SENTINEL_PARKER.register();
        loop {
            // Nothing in there panics. If something did, the next look would be as good.
            catch_panic(|| self.turn());
        }
    }

    /// One look, what was left for it, and a nap.
    fn turn(&mut self) {
        let interval = shortest_budget();
        ticker::keep_ticking(&self.scanner.clock);
        STOLEN_TIME.look(&self.scanner.clock);
        let sight = self.scanner.scan();
        self.sleep_monitor.has_looked();
        let at_workers = self.look_at_workers();
        if dispatch::run_deferred() || !sight.is_idle {
            cgroup::look();
            self.quiet = Duration::ZERO;
        } else {
            self.quiet += interval;
        }
        if self.quiet >= QUIET && !runtime::is_any() && self.sleep() {
            self.quiet = Duration::ZERO;
            return;
        }
        let dues = [sight.due, at_workers].into_iter().flatten();
        self.sleep_monitor.has_looked();
        self.sleep_monitor.nap(dues.fold(interval, Duration::min));
    }

    /// When to look at them again, at the latest.
    fn look_at_workers(&mut self) -> Option<Duration> {
        let mut tools = ScanTools {
            clock: &self.scanner.clock,
            sampler: self.scanner.sampler.as_mut(),
        };
        self.scans.scan(&mut tools).map(Duration::from_nanos)
    }

    /// Sleeps until a poll begins. False if it may not.
    fn sleep(&mut self) -> bool {
        if !ticker::stop_ticking(&self.scanner.clock) || !SENTINEL_PARKER.prepare_park() {
            return false;
        }
        // What came before it lay down (a poll, a guard, a poll that is to be judged) did not rouse it, and
        // is seen here.
        let is_still = self.scanner.scan().is_idle;
        if !is_still || runtime::is_any() || dispatch::is_any_deferred() {
            SENTINEL_PARKER.cancel_park();
            return true;
        }
        self.sleep_monitor.will_sleep();
        SENTINEL_PARKER.park();
        self.sleep_monitor.awake();
        STOLEN_TIME.begin_anew(&self.scanner.clock);
        true
    }
}

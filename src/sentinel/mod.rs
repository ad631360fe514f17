//! Floor 5: the sentinel, the thread that observes polls while they run.
//!
//! The process has one sentinel. The [`ticker`], a second thread, publishes the time for it. The sentinel wakes when a
//! poll in flight is about to exceed its budget, and otherwise once per shortest budget in use. So each poll that
//! exceeds its budget is in flight at one scan at least. The sentinel sleeps while no poll runs, and the next poll
//! wakes it through [`SENTINEL_PARKER`].
//!
//! The sentinel reads the slots of the hot path, and imports nothing else of it.

mod capabilities;
mod diagnose;
mod escalation;
pub(crate) mod known_frame;
mod poll_breakpoints;
mod poll_site;
pub(crate) mod restarting_callers;
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
    feature = "stacks",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
pub(crate) mod modules;
#[cfg(all(
    feature = "stacks",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
pub(crate) mod unwind;

#[cfg(not(all(
    feature = "stacks",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
#[path = "no_unwind.rs"]
mod unwind;

#[cfg(all(
    target_os = "linux",
    any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "riscv64"
    )
))]
mod syscall_names;
#[cfg(all(
    target_os = "linux",
    any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "riscv64"
    )
))]
pub(crate) mod syscalls;
#[cfg(not(all(
    target_os = "linux",
    any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "riscv64"
    )
)))]
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

/// The idle time after which the sentinel parks. Waking it is a system call on the hot path, and polls a few milliseconds
/// apart must not make one each.
const IDLE_BEFORE_PARK: Duration = Duration::from_millis(50);

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
    let now = clock.raw();
    let clock = clock.clone();
    THREAD.start(move || Sentinel::new(&clock).run())?;
    SENTINEL.start(now);
    Ok(())
}

/// Returns whether stacks can be taken here. An error says why not. Waits for the self-test, which takes some milliseconds
/// once in a process.
pub(crate) fn can_take_stacks() -> Result<(), String> {
    stack_sampler::is_installed().and_then(|()| self_test::outcome())
}

/// The state of the sentinel, on its own thread.
struct Sentinel {
    scanner: Scanner,
    worker_scans: WorkerScans,
    sleep_monitor: SleepMonitor,
    /// The time in which nothing has happened.
    idle: Duration,
}

impl Sentinel {
    fn new(clock: &Clock) -> Self {
        Self {
            scanner: Scanner::new(clock.clone()),
            worker_scans: WorkerScans::default(),
            sleep_monitor: SleepMonitor::new(clock.clone(), &SENTINEL, &TICKER),
            idle: Duration::ZERO,
        }
    }

    fn run(mut self) {
        SENTINEL_PARKER.register();
        loop {
            // Nothing in `turn` panics. If it did, the next turn would go on.
            catch_panic(|| self.turn());
        }
    }

    /// Makes one scan, runs the deferred jobs, and sleeps.
    fn turn(&mut self) {
        let interval = shortest_budget();
        ticker::keep_ticking(&self.scanner.clock);
        STOLEN_TIME.update(&self.scanner.clock);
        let result = self.scanner.scan();
        self.sleep_monitor.after_scan();
        let workers_due = self.scan_workers();
        if dispatch::run_deferred() || !result.is_idle {
            cgroup::update();
            self.idle = Duration::ZERO;
        } else {
            self.idle += interval;
        }
        if self.idle >= IDLE_BEFORE_PARK && !runtime::is_any() && self.park() {
            self.idle = Duration::ZERO;
            return;
        }
        let dues = [result.due, workers_due].into_iter().flatten();
        self.sleep_monitor.after_scan();
        self.sleep_monitor.sleep(dues.fold(interval, Duration::min));
    }

    /// Returns when to scan the workers again.
    fn scan_workers(&mut self) -> Option<Duration> {
        let mut tools = ScanTools {
            clock: &self.scanner.clock,
            sampler: self.scanner.sampler.as_mut(),
        };
        self.worker_scans.scan(&mut tools).map(Duration::from_nanos)
    }

    /// Parks until a poll begins. Returns false if the sentinel must not park.
    fn park(&mut self) -> bool {
        if !ticker::stop_ticking(&self.scanner.clock) || !SENTINEL_PARKER.prepare_park() {
            return false;
        }
        // A poll, a guard or a job from before the announcement did not wake the sentinel, so this scan must see it.
        let is_idle = self.scanner.scan().is_idle;
        if !is_idle || runtime::is_any() || dispatch::is_any_deferred() {
            SENTINEL_PARKER.cancel_park();
            return true;
        }
        self.sleep_monitor.will_park();
        SENTINEL_PARKER.park();
        self.sleep_monitor.after_park();
        STOLEN_TIME.restart(&self.scanner.clock);
        true
    }
}

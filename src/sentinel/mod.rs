//! Floor 5: the thread that looks at polls while they run.
//!
//! One for the process. It wakes where a poll in flight is about to pass its budget, and otherwise as
//! often as the shortest budget in use, so that no poll can begin and pass its budget unseen. When
//! nothing has happened for a while it lies down until the next poll rouses it ([`DOZE`]).
//!
//! It meets the hot path at the slot, and never imports it.

mod capabilities;
mod escalate;
mod examine;
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
mod oversleep;
mod part;
mod repeats;
mod scan;
mod stacks;
mod stalled;
mod trial;
mod workers;

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

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::cgroup;
use crate::clock::Clock;
use crate::contain::contain;
use crate::error::Error;
use crate::flight_record;
use crate::report;
use crate::runtime;
use crate::service;
use crate::slot::DOZE;
use crate::ticks::TICKS;
use crate::watch::{Stacks, shortest_budget, tick_of};
pub use capabilities::{Capabilities, Capability};
use oversleep::Oversleep;
pub(crate) use scan::Scanner;
use workers::{Means, Rounds};

const NAME: &str = "shotclock-watch";

/// For so long nothing must have happened before the sentinel lies down: rousing it is a system call
/// on somebody's hot path, and a poll every few milliseconds must not make one each.
const QUIET: Duration = Duration::from_millis(50);

/// Starts the sentinel if it does not run yet. It runs as long as the process.
pub(crate) fn start(clock: &Clock, stacks: Stacks, signal: i32) -> Result<(), Error> {
    static STARTED: Mutex<bool> = Mutex::new(false);
    if !clock.is_real() {
        return Ok(());
    }
    flight_record::prepare();
    if stacks != Stacks::Never {
        stacks::install(signal);
    }
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*started {
        let clock = clock.clone();
        service::spawn(NAME, move || Sentinel::new(&clock).run())?;
        *started = true;
    }
    Ok(())
}

/// Whether stacks can be taken here; an error says why not. It waits until that was tried out, which
/// takes some milliseconds once in a process.
pub(crate) fn can_take_stacks() -> Result<(), String> {
    stacks::is_installed().and_then(|()| trial::outcome())
}

/// Publishes the time, if anybody goes by it. The sentinel's own thread only.
fn tick(clock: &Clock) {
    let read_clock = || clock.raw();
    match tick_of() {
        Some(_) => TICKS.publish(read_clock),
        None => TICKS.stop(read_clock),
    }
}

/// The thread's own state.
struct Sentinel {
    scanner: Scanner,
    /// Of the workers of guarded runtimes.
    rounds: Rounds,
    oversleep: Oversleep,
    /// For how long nothing has happened.
    quiet: Duration,
}

impl Sentinel {
    fn new(clock: &Clock) -> Self {
        Self {
            scanner: Scanner::new(clock.clone()),
            rounds: Rounds::default(),
            oversleep: Oversleep::new(clock.clone()),
            quiet: Duration::ZERO,
        }
    }

    fn run(mut self) {
        DOZE.register();
        loop {
            // Nothing in there panics. If something did, the next look would be as good.
            contain(|| self.turn());
        }
    }

    /// One look, what was left for it, and a nap.
    fn turn(&mut self) {
        let interval = shortest_budget();
        self.tick();
        let sight = self.scanner.look();
        self.oversleep.has_looked();
        let at_workers = self.look_at_workers();
        if report::run_what_was_left_for_later() || !sight.is_still {
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
        self.nap(dues.fold(interval, Duration::min));
    }

    fn tick(&self) {
        tick(&self.scanner.clock);
    }

    /// Naps, and publishes the time meanwhile.
    fn nap(&mut self, mut rest: Duration) {
        while let Some(tick) = tick_of().map(Duration::from_nanos) {
            if rest <= tick {
                break;
            }
            if !self.oversleep.nap(tick) {
                return;
            }
            rest -= tick;
            self.tick();
        }
        self.oversleep.nap(rest);
    }

    /// When to look at them again, at the latest.
    fn look_at_workers(&mut self) -> Option<Duration> {
        let mut means = Means {
            clock: &self.scanner.clock,
            taker: self.scanner.taker.as_mut(),
        };
        self.rounds.look(&mut means).map(Duration::from_nanos)
    }

    /// Sleeps until a poll begins. False if it may not.
    fn sleep(&mut self) -> bool {
        // Before it lies down: who begins later shall not go by a tick of long ago.
        TICKS.stop(|| self.scanner.clock.raw());
        if !DOZE.lie_down() {
            return false;
        }
        // A poll that began before it lay down did not rouse it, and is seen here.
        if !self.scanner.look().is_still || runtime::is_any() {
            DOZE.get_up();
            return true;
        }
        DOZE.sleep();
        self.oversleep.awake();
        true
    }
}

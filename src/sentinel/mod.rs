//! Floor 5: the thread that looks at polls while they run.
//!
//! One for the process, with another one beside it that publishes the time ([`ticker`]). It wakes where a poll in flight is about to pass its budget, and otherwise as
//! often as the shortest budget in use, so that no poll can begin and pass its budget unseen. When
//! nothing has happened for a while it lies down until the next poll rouses it ([`SENTINEL_PARKER`]).
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
mod loader;
mod one_poll;
mod oversleep;
mod part;
mod patience;
mod poll_site;
mod repeats;
mod scan;
mod stacks;
mod stalled;
mod ticker;
mod trial;
mod workers;

#[cfg(all(
    feature = "stacks",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod modules;
#[cfg(all(
    feature = "stacks",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod unwind;

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
mod syscalls;
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

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::catch_panic::catch_panic;
use crate::cgroup;
use crate::clock::Clock;
use crate::error::Error;
use crate::flight_record;
use crate::liveness::{SENTINEL, TICKER};
use crate::report;
use crate::runtime;
use crate::service_thread;
use crate::slot::SENTINEL_PARKER;
use crate::stolen_time::STOLEN_TIME;
use crate::watch::{Stacks, shortest_budget};
pub use capabilities::{Capabilities, Capability};
use oversleep::Oversleep;
pub(crate) use scan::Scanner;
use workers::{Means, Rounds};

const NAME: &str = "shotclock-watch";

/// For so long nothing must have happened before the sentinel lies down: rousing it is a system call
/// on somebody's hot path, and a poll every few milliseconds must not make one each.
const QUIET: Duration = Duration::from_millis(50);

/// Which threads have been started. They run as long as the process.
struct Started {
    ticker: bool,
    sentinel: bool,
}

/// Starts the sentinel and its ticker if they do not run yet.
pub(crate) fn start(clock: &Clock, stacks: Stacks, signal: i32) -> Result<(), Error> {
    static STARTED: Mutex<Started> = Mutex::new(Started {
        ticker: false,
        sentinel: false,
    });
    if !clock.is_real() {
        return Ok(());
    }
    flight_record::prepare();
    if stacks != Stacks::Never {
        stacks::install(signal);
    }
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if !started.ticker {
        ticker::start(clock)?;
        started.ticker = true;
    }
    if !started.sentinel {
        let clock = clock.clone();
        service_thread::spawn(NAME, move || Sentinel::new(&clock).run())?;
        started.sentinel = true;
    }
    Ok(())
}

/// Whether stacks can be taken here; an error says why not. It waits until that was tried out, which
/// takes some milliseconds once in a process.
pub(crate) fn can_take_stacks() -> Result<(), String> {
    stacks::is_installed().and_then(|()| trial::outcome())
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
            oversleep: Oversleep::new(clock.clone(), &SENTINEL, &TICKER),
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
        self.oversleep.has_looked();
        self.oversleep.nap(dues.fold(interval, Duration::min));
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
        if !ticker::stop_ticking(&self.scanner.clock) || !SENTINEL_PARKER.prepare_park() {
            return false;
        }
        // What came before it lay down (a poll, a guard, a poll that is to be judged) did not rouse it, and
        // is seen here.
        let is_still = self.scanner.look().is_still;
        if !is_still || runtime::is_any() || report::is_any_left_for_later() {
            SENTINEL_PARKER.cancel_park();
            return true;
        }
        self.oversleep.will_sleep();
        SENTINEL_PARKER.park();
        self.oversleep.awake();
        STOLEN_TIME.begin_anew(&self.scanner.clock);
        true
    }
}

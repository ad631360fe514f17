//! Floor 5: the thread that looks at polls while they run.
//!
//! One for the process. It wakes where a poll in flight is about to pass its budget, and otherwise as
//! often as the shortest budget in use, so that no poll can begin and pass its budget unseen. When
//! nothing has happened for a while it lies down until the next poll rouses it ([`DOZE`]).
//!
//! It meets the hot path at the slot, and never imports it.

mod scan;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::error::Error;
use crate::slot::DOZE;
use crate::watch::shortest_budget;
pub(crate) use scan::Scanner;

const NAME: &str = "shotclock-watch";

/// For so long nothing must have happened before the sentinel lies down: rousing it is a system call
/// on somebody's hot path, and a poll every few milliseconds must not make one each.
const QUIET: Duration = Duration::from_millis(50);

/// Starts the sentinel if it does not run yet. It runs as long as the process.
pub(crate) fn start(clock: &Clock) -> Result<(), Error> {
    static STARTED: Mutex<bool> = Mutex::new(false);
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*started && clock.is_real() {
        let scanner = Scanner::new(clock.clone());
        let thread = std::thread::Builder::new().name(NAME.to_owned());
        let run = thread.spawn(move || run(scanner));
        run.map_err(|error| Error::thread(NAME, error))?;
        *started = true;
    }
    Ok(())
}

fn run(mut scanner: Scanner) {
    let mut quiet = Duration::ZERO;
    loop {
        let nap = shortest_budget();
        let sight = scanner.look();
        if sight.is_still {
            quiet += nap;
        } else {
            quiet = Duration::ZERO;
        }
        if quiet >= QUIET && sleep(&mut scanner) {
            quiet = Duration::ZERO;
            continue;
        }
        std::thread::park_timeout(sight.due.map_or(nap, |due| due.min(nap)));
    }
}

/// Sleeps until a poll begins. False if it may not.
fn sleep(scanner: &mut Scanner) -> bool {
    if !DOZE.lie_down() {
        return false;
    }
    // A poll that began before it lay down did not rouse it, and is seen here.
    if !scanner.look().is_still {
        DOZE.get_up();
        return true;
    }
    while DOZE.is_asleep() {
        std::thread::park();
    }
    true
}

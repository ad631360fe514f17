//! Tells systemd that the service is alive, as long as it is (feature `systemd`, on Linux).
//!
//! With `WatchdogSec=` in its unit, systemd restarts a service that does not say `WATCHDOG=1` in time.
//! A task or a thread that says so whatever happens proves nothing; [`start`] has a thread say it only
//! while no watched poll is stuck, and no worker of a guarded runtime. What it sees is shown by `systemctl status`.
//!
//! ```ini
//! [Service]
//! Type=notify
//! WatchdogSec=30
//! Restart=on-failure
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::catch_panic::catch_panic;
use crate::error::Error;
use crate::service_thread;
use crate::sync::thread::Thread;
use crate::watch::Health;
use crate::watchdog::Watchdog;

const NAME: &str = "shotclock-sysd";

/// How often it is said in the time that systemd allows; and for what part of it a poll must have been
/// stuck before it is not. A short stall, which a service may well have at the moment of a look, is no
/// reason to be restarted.
const PARTS: u32 = 4;

/// Starts to tell systemd that the service is alive, four times in the time that its unit allows
/// (`WatchdogSec=`), unless a watched poll, or a worker of a guarded runtime, has been stuck for a quarter of that
/// time. Nor does it say so if the watchdog's own thread has not looked for as long: then it does not know.
///
/// So a service in which one is stuck is restarted between one and one and a quarter of
/// `WatchdogSec=` after that began. Where systemd does not ask for it, nothing is started
/// ([`Heartbeat::is_active`]): a program may call this wherever it runs.
///
/// That the service is ready (`READY=1`) it must say itself, when it is.
///
/// # Examples
///
/// ```
/// use shotclock::Watchdog;
///
/// # fn main() -> Result<(), shotclock::Error> {
/// let watchdog = Watchdog::builder().build()?;
/// let heartbeat = shotclock::systemd::start(&watchdog)?;
/// // … serve …
/// # drop(heartbeat);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// If systemd asks for it, and the thread cannot be started.
///
/// # Non-guarantees
///
/// It knows of watched polls and of the workers of guarded runtimes ([`Watchdog::guard`]). A service that is stuck
/// elsewhere, or does nothing at all, is alive to it.
pub fn start(watchdog: &Watchdog) -> Result<Heartbeat, Error> {
    let stop = Arc::<AtomicBool>::default();
    let Some(allowed) = sd_notify::watchdog_enabled() else {
        return Ok(Heartbeat { stop, thread: None });
    };
    let beat = {
        let (stop, watchdog) = (Arc::clone(&stop), watchdog.clone());
        move || beat(&watchdog, allowed / PARTS, &stop)
    };
    let thread = Some(service_thread::spawn(NAME, beat)?);
    Ok(Heartbeat { stop, thread })
}

/// Tells systemd that the service is alive, until it is dropped. Made by [`start`].
#[derive(Debug)]
#[must_use = "when it is dropped, systemd hears nothing more and restarts the service"]
pub struct Heartbeat {
    stop: Arc<AtomicBool>,
    thread: Option<Thread>,
}

impl Heartbeat {
    /// Whether systemd asked for it.
    pub fn is_active(&self) -> bool {
        self.thread.is_some()
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = &self.thread {
            thread.unpark();
        }
    }
}

fn beat(watchdog: &Watchdog, interval: Duration, stop: &AtomicBool) {
    let mut told = None;
    while !stop.load(Ordering::Acquire) {
        // Nothing in there panics. If something did, no beat would be the right answer to it.
        catch_panic(|| tell(&watchdog.health(), interval, &mut told));
        std::thread::park_timeout(interval);
    }
}

/// Says that the service is alive if it is, and how it is if that has changed.
fn tell(health: &Health, interval: Duration, told: &mut Option<bool>) {
    let is_stuck = is_stuck(health, interval);
    if is_stuck || *told != Some(is_stuck) {
        let status = match is_stuck {
            true => health.to_string(),
            false => "responsive".to_owned(),
        };
        say(NotifyState::Status(&status));
    }
    *told = Some(is_stuck);
    if !is_stuck {
        say(NotifyState::Watchdog);
    }
}

/// Whether something has been stuck for that time, or the sentinel has not looked for it.
fn is_stuck(health: &Health, interval: Duration) -> bool {
    let times = [health.oldest_stall, health.unseen];
    times.iter().flatten().any(|time| *time >= interval)
}

/// If it cannot be said, systemd will draw its own conclusions, which are the right ones.
fn say(state: NotifyState<'_>) {
    let _ = sd_notify::notify(&[state]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_that_is_unknown_for_as_long_as_a_stall_may_last_is_no_heartbeat() {
        let watchdog = Watchdog::builder().without_tracing().build();
        let mut health = watchdog.map(|watchdog| watchdog.health()).ok();
        let mut stuck = |stall, unseen| {
            let health = health.as_mut()?;
            (health.oldest_stall, health.unseen) = (stall, unseen);
            Some(is_stuck(health, Duration::from_secs(5)))
        };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(stuck(None, None), Some(false));
        assert_eq!(stuck(seconds(4), seconds(4)), Some(false));
        assert_eq!(stuck(seconds(5), None), Some(true));
        assert_eq!(stuck(None, seconds(5)), Some(true));
    }
}

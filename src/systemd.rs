//! Sends systemd a heartbeat while the service is responsive (feature `systemd`, on Linux).
//!
//! With `WatchdogSec=` in the unit, systemd restarts a service that does not send `WATCHDOG=1` in time. A task or a thread
//! that sends it unconditionally proves nothing. The thread of [`start`] sends it only while no watched poll has stalled
//! and no worker of a guarded runtime is stuck. `systemctl status` shows the health of the watchdog.
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

use crate::background_thread;
use crate::catch_panic::catch_panic;
use crate::error::Error;
use crate::sync::thread::Thread;
use crate::watch::Health;
use crate::watchdog::Watchdog;

const NAME: &str = "shotclock-sysd";

/// Heartbeats in `WatchdogSec=`. A stall that is shorter than one interval is no reason for a restart.
const HEARTBEATS_PER_TIMEOUT: u32 = 4;

/// Sends systemd a heartbeat four times in `WatchdogSec=`, until the returned value is dropped.
///
/// The heartbeat pauses if a watched poll has stalled, or a worker of a guarded runtime has been stuck, for a quarter of
/// `WatchdogSec=`. It also pauses if the sentinel has not scanned for that time, because the health is then unknown. So
/// systemd restarts the service between one and one and a quarter `WatchdogSec=` after the stall began.
///
/// Without `WatchdogSec=`, or outside systemd, this starts no thread ([`Heartbeat::is_active`]). So a program may call it in
/// every environment. The program itself must report that it is ready (`READY=1`).
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
/// If systemd expects a heartbeat and the operating system refuses the thread ([`Error::is_thread_refused`]).
///
/// # Non-guarantees
///
/// The heartbeat covers watched polls and the workers of guarded runtimes ([`Watchdog::guard`]). It goes on in a service
/// that is stuck elsewhere, or that does no work.
pub fn start(watchdog: &Watchdog) -> Result<Heartbeat, Error> {
    let stop = Arc::<AtomicBool>::default();
    let Some(timeout) = sd_notify::watchdog_enabled() else {
        return Ok(Heartbeat { stop, thread: None });
    };
    let run = {
        let (stop, watchdog) = (Arc::clone(&stop), watchdog.clone());
        move || send_heartbeats(&watchdog, timeout / HEARTBEATS_PER_TIMEOUT, &stop)
    };
    let thread = Some(background_thread::spawn(NAME, run)?);
    Ok(Heartbeat { stop, thread })
}

/// Sends heartbeats to systemd until it is dropped. Returned by [`start`].
#[derive(Debug)]
#[must_use = "a drop ends the heartbeat, and systemd restarts the service"]
pub struct Heartbeat {
    stop: Arc<AtomicBool>,
    thread: Option<Thread>,
}

impl Heartbeat {
    /// Returns whether systemd expects a heartbeat.
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

fn send_heartbeats(watchdog: &Watchdog, interval: Duration, stop: &AtomicBool) {
    let mut was_stuck = None;
    while !stop.load(Ordering::Acquire) {
        // No code in it panics. After a panic, no heartbeat would be right.
        catch_panic(|| notify(&watchdog.health(), interval, &mut was_stuck));
        std::thread::park_timeout(interval);
    }
}

/// Sends a heartbeat if the service is responsive, and the status while it is stuck or has changed.
fn notify(health: &Health, interval: Duration, was_stuck: &mut Option<bool>) {
    let is_stuck = is_stuck(health, interval);
    if is_stuck || *was_stuck != Some(is_stuck) {
        let status = match is_stuck {
            true => health.to_string(),
            false => "responsive".to_owned(),
        };
        send(NotifyState::Status(&status));
    }
    *was_stuck = Some(is_stuck);
    if !is_stuck {
        send(NotifyState::Watchdog);
    }
}

/// Returns whether a poll or worker has been stuck, or the sentinel has not scanned, for `interval`.
fn is_stuck(health: &Health, interval: Duration) -> bool {
    let times = [health.oldest_stall, health.unseen];
    times.iter().flatten().any(|time| *time >= interval)
}

/// Ignores an error: systemd then misses the heartbeat, and restarts the service.
fn send(state: NotifyState<'_>) {
    let _ = sd_notify::notify(&[state]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_stuck_after_an_interval_without_a_scan_is_true() {
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

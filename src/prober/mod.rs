//! Floor 5: spawns probes on guarded runtimes, which measure the lag and find the threads of the workers.
//!
//! One thread of the process spawns them, and not the sentinel. A spawn takes locks of the runtime and may run hooks of
//! the user, and the sentinel must not wait for either.

mod probe;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::background_thread::BackgroundThread;
use crate::catch_panic::catch_panic;
use crate::error::Error;
use crate::runtime::{self, Guarded, Workers};
use probe::{LAG_PERIOD, Probe, Rendezvous};

/// The wait after the first discovery of a runtime. The wait doubles up to [`MAX_DISCOVERY_WAIT`], because the workers wait for
/// one another in a discovery.
const MIN_DISCOVERY_WAIT: Duration = Duration::from_millis(100);

/// A discovery a minute costs nothing, and finds a worker that was busy in all discoveries before.
const MAX_DISCOVERY_WAIT: Duration = Duration::from_secs(60);

static THREAD: BackgroundThread = BackgroundThread::new("shotclock-probe");

/// Starts the thread unless it runs, and probes new runtimes now.
///
/// The thread runs as long as the process, and sleeps without a timer while no runtime is guarded.
pub(crate) fn start() -> Result<(), Error> {
    THREAD.start(run)?;
    wake();
    Ok(())
}

/// Probes new runtimes now.
pub(crate) fn wake() {
    THREAD.wake();
}

fn run() {
    let mut schedules: HashMap<u64, Schedule> = HashMap::new();
    loop {
        let all = runtime::all();
        schedules.retain(|id, _| all.iter().any(|guarded| guarded.id == *id));
        for guarded in &all {
            let schedule = schedules.entry(guarded.id).or_insert_with(Schedule::new);
            // A hook of the user may panic. The next probe does the same work.
            catch_panic(|| schedule.send_due_probes(guarded));
        }
        if all.is_empty() {
            std::thread::park();
        } else {
            drop(all);
            std::thread::park_timeout(LAG_PERIOD);
        }
    }
}

/// The time of the next discovery of a runtime, for as long as the thread of a worker is unknown.
struct Schedule {
    next_discovery: Instant,
    discovery_wait: Duration,
    /// The last discovery. Its probes own it until the last of them was polled or dropped.
    discovery: Weak<Rendezvous>,
}

impl Schedule {
    fn new() -> Self {
        Self {
            next_discovery: Instant::now(),
            discovery_wait: MIN_DISCOVERY_WAIT,
            discovery: Weak::new(),
        }
    }

    fn send_due_probes(&mut self, guarded: &Arc<Guarded>) {
        let Some(workers) = guarded.workers() else {
            return;
        };
        if guarded.lag.try_begin_probe(guarded.clock().raw()) {
            send(&workers, Probe::for_lag(guarded));
        }
        if !workers.is_any_unknown() {
            self.discovery_wait = MIN_DISCOVERY_WAIT;
        } else if self.discovery.strong_count() == 0 && Instant::now() >= self.next_discovery {
            // One discovery at a time: a worker that is stuck for an hour must not find hundreds of probes in its queue.
            self.discovery = send_discovery(guarded, &workers);
            self.next_discovery = Instant::now() + self.discovery_wait;
            self.discovery_wait = (self.discovery_wait * 2).min(MAX_DISCOVERY_WAIT);
        }
    }
}

/// Sends one probe for each worker. Each probe blocks its worker until all have arrived, so no worker takes two.
///
/// The worker that parked last takes nearly every single probe, so single probes would not find the other workers.
fn send_discovery(guarded: &Arc<Guarded>, workers: &Workers) -> Weak<Rendezvous> {
    let rendezvous = Rendezvous::new(workers.count());
    for _ in 0..workers.count() {
        send(workers, Probe::for_discovery(guarded, &rendezvous));
    }
    Arc::downgrade(&rendezvous)
}

fn send(workers: &Workers, probe: Probe) {
    drop(workers.handle().spawn(probe));
}

#[cfg(test)]
mod tests {
    use tokio::runtime::{Builder, Handle};

    use super::*;
    use crate::runtime::{Stuck, StuckWorkerSink};
    use crate::slot::{Diagnosis, ReportState};

    struct NoSink;

    impl StuckWorkerSink for NoSink {
        fn on_stuck(&self, _: &Guarded, _: Stuck, _: Diagnosis, _: &mut ReportState) {}

        fn on_continued(&self, _: &Guarded, _: Stuck, _: Diagnosis, _: ReportState) {}
    }

    /// Makes a guarded runtime outside the list, so the thread of the process sends no probe to it.
    fn guarded(handle: &Handle) -> Arc<Guarded> {
        let watchdog = crate::Watchdog::builder()
            .without_tracing()
            .build()
            .unwrap();
        let watchdog = Arc::clone(watchdog.watch("w").watchdog());
        let guarded = Guarded::new("prober", watchdog, Arc::new(NoSink), 1);
        guarded.attach(handle);
        guarded
    }

    #[test]
    fn discovery_before_the_last_one_is_answered_is_not_sent() {
        // No thread is in `block_on`, so no probe is answered.
        let runtime = Builder::new_current_thread().build().unwrap();
        let alive = || runtime.metrics().num_alive_tasks();
        let guarded = guarded(runtime.handle());
        let mut schedule = Schedule::new();
        for _ in 0..9 {
            schedule.next_discovery = Instant::now();
            schedule.send_due_probes(&guarded);
            // One probe of the discovery of one worker, and one for the lag.
            assert_eq!(alive(), 2);
        }
        runtime.block_on(async {
            while alive() > 0 {
                tokio::task::yield_now().await;
            }
        });
        // The discovery was answered. From here on the worker's thread is unknown again.
        guarded.workers().unwrap().unbind(0);
        schedule.next_discovery = Instant::now();
        schedule.send_due_probes(&guarded);
        assert_eq!(alive(), 2);
    }
}

//! Floor 5: tasks that are sent into guarded runtimes, to learn how late they are and which threads
//! their workers are.
//!
//! One thread for the process sends them, and not the sentinel: to spawn a task takes locks of the
//! runtime's and may run hooks of the user's, and the sentinel must wait for nobody.

mod probe;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use crate::catch_panic::catch_panic;
use crate::error::Error;
use crate::runtime::{self, Guarded, Workers};
use crate::service_thread;
use crate::sync::Lock;
use crate::sync::thread::Thread;
use probe::{PERIOD, Probe, Rendezvous};

const NAME: &str = "shotclock-probe";

/// Between two times that all workers are called together.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);

static THREAD: OnceLock<Thread> = OnceLock::new();

/// Starts the thread if it does not run yet, and has it look at once. It runs as long as the process,
/// and sleeps while nothing is guarded.
pub(crate) fn start() -> Result<(), Error> {
    static STARTING: Lock<()> = Lock::new(());
    let _one_at_a_time = STARTING.lock();
    if THREAD.get().is_none() {
        let thread = service_thread::spawn(NAME, run)?;
        THREAD.get_or_init(|| thread);
    }
    wake();
    Ok(())
}

/// Has it look now, because a runtime became known.
pub(crate) fn wake() {
    if let Some(thread) = THREAD.get() {
        thread.unpark();
    }
}

fn run() {
    let mut plans: HashMap<u64, Plan> = HashMap::new();
    loop {
        let all = runtime::all();
        plans.retain(|id, _| all.iter().any(|guarded| guarded.id == *id));
        for guarded in &all {
            let plan = plans.entry(guarded.id).or_insert_with(Plan::new);
            // What panics in there is a hook of the user's; the next probe is as good.
            catch_panic(|| plan.follow(guarded));
        }
        if all.is_empty() {
            std::thread::park();
        } else {
            drop(all);
            std::thread::park_timeout(PERIOD);
        }
    }
}

/// When the workers of a runtime are called together next, if one of them is not known: the longer it
/// remains unknown, the more seldom, because they wait for one another.
struct Plan {
    at: Instant,
    wait: Duration,
    /// The last census. Its probes hold it until the last of them was polled or dropped.
    census: Weak<Rendezvous>,
}

impl Plan {
    fn new() -> Self {
        Self {
            at: Instant::now(),
            wait: SHORTEST,
            census: Weak::new(),
        }
    }

    fn follow(&mut self, guarded: &Arc<Guarded>) {
        let Some(workers) = guarded.workers() else {
            return;
        };
        if guarded.lag.try_begin_probe(guarded.clock().raw()) {
            send(&workers, Probe::of_lag(guarded));
        }
        if !workers.is_any_unknown() {
            self.wait = SHORTEST;
        } else if self.census.strong_count() == 0 && Instant::now() >= self.at {
            // One that is not answered yet would only be followed by another in the same queue: a worker
            // that is stuck for an hour must not have hundreds of them to poll when it goes on.
            self.census = call_together(guarded, &workers);
            self.at = Instant::now() + self.wait;
            self.wait = (self.wait * 2).min(LONGEST);
        }
    }
}

/// As many probes as there are workers, each of which keeps its worker until all have met: so no
/// worker can take two. A single probe is nearly always taken by the worker that parked last.
fn call_together(guarded: &Arc<Guarded>, workers: &Workers) -> Weak<Rendezvous> {
    let rendezvous = Rendezvous::of(workers.count());
    for _ in 0..workers.count() {
        send(workers, Probe::of_census(guarded, &rendezvous));
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

    struct NoListener;

    impl StuckWorkerSink for NoListener {
        fn on_stuck(&self, _: &Guarded, _: Stuck, _: Diagnosis, _: &mut ReportState) {}

        fn on_continued(&self, _: &Guarded, _: Stuck, _: Diagnosis, _: ReportState) {}
    }

    /// Guarded, but not in the list: the prober's own thread sends nothing to it.
    fn guarded(handle: &Handle) -> Arc<Guarded> {
        let watchdog = crate::Watchdog::builder()
            .without_tracing()
            .build()
            .unwrap();
        let watchdog = Arc::clone(watchdog.watch("w").watchdog());
        let guarded = Guarded::new("prober", watchdog, Arc::new(NoListener), 1);
        guarded.attach(handle);
        guarded
    }

    #[test]
    fn census_while_one_is_unanswered_is_not_sent() {
        // No thread is in `block_on`: no probe is answered.
        let runtime = Builder::new_current_thread().build().unwrap();
        let alive = || runtime.metrics().num_alive_tasks();
        let guarded = guarded(runtime.handle());
        let mut plan = Plan::new();
        for _ in 0..9 {
            plan.at = Instant::now();
            plan.follow(&guarded);
            // One of the census of one worker, and one that measures the lag.
            assert_eq!(alive(), 2);
        }
        runtime.block_on(async {
            while alive() > 0 {
                tokio::task::yield_now().await;
            }
        });
        // Answered; and the worker's thread is to be asked for again.
        guarded.workers().unwrap().unbind(0);
        plan.at = Instant::now();
        plan.follow(&guarded);
        assert_eq!(alive(), 2);
    }
}

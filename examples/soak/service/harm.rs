//! Applies a [`Sabotage`] to the service, in one of twenty healthy requests.

use std::fs::File;
use std::hint::black_box;
use std::mem::forget;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use metrics::counter;

use super::app::App;
use super::stall::INTERRUPTED;
use crate::sabotage::Sabotage;

const RARELY: u64 = 20;

pub(super) fn do_harm(app: &Arc<App>) {
    static REQUESTS: AtomicU64 = AtomicU64::new(0);
    let Some(sabotage) = app.sabotage else { return };
    let number = REQUESTS.fetch_add(1, Relaxed);
    if number.is_multiple_of(RARELY) {
        harm(app, sabotage, number);
    }
}

fn harm(app: &Arc<App>, sabotage: Sabotage, number: u64) {
    let spots = &app.spots;
    match sabotage {
        Sabotage::Lost => {
            let name = spots.nested.watch.name();
            app.announcer.stall(Some(name), "never".to_owned(), || ());
        }
        Sabotage::Blame => thread::sleep(Duration::from_millis(50)),
        Sabotage::Worker if number == 0 => block_a_worker(),
        Sabotage::Free if number == 0 => app.announcer.stall(None, "never".to_owned(), || ()),
        Sabotage::Panics => drop(tokio::spawn(spots.burst.watch(panic()))),
        Sabotage::Offloads => {
            let app = Arc::clone(app);
            tokio::spawn(async move { app.lane.run(|| ()).await });
        }
        Sabotage::Memory => forget(black_box(vec![7_u8; 2 << 20])),
        Sabotage::Files => forget(File::open("/dev/null")),
        Sabotage::Threads => drop(thread::spawn(|| {
            loop {
                thread::park();
            }
        })),
        Sabotage::Series => {
            counter!("soak_more_total", "number" => number.to_string()).increment(1)
        }
        Sabotage::Interrupted => drop(INTERRUPTED.fetch_add(1, Relaxed)),
        Sabotage::Flight if number == 0 => stay_in_flight(app),
        _ => {}
    }
}

async fn panic() {
    std::panic::resume_unwind(Box::new("a panic without a request"))
}

fn block_a_worker() {
    // Long enough for a report.
    tokio::spawn(async { thread::sleep(Duration::from_millis(1_500)) });
}

fn stay_in_flight(app: &App) {
    let watch = app.watchdog.watch("for ever");
    let watch = watch.with_budget(Duration::from_secs(86_400));
    thread::spawn(move || {
        let _entered = watch.enter();
        loop {
            thread::park();
        }
    });
}

//! The service: two watchdogs, one for each `Timing`, over the same routes on one runtime, which one of them
//! guards. It executes the driver's commands from its standard input, and ends with that input.

mod announcer;
mod app;
mod counting;
mod harm;
mod healthy;
#[path = "../../../tests/heap/mod.rs"]
mod heap;
mod layer;
mod misbehaviour;
mod reports;
mod stall;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use shotclock::{SlowPoll, Timing, Watchdog};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::Result;
use crate::sabotage::Sabotage;
use crate::wire::News;
use announcer::Announcer;
use app::App;
use counting::{BUDGET, PollCounts};
use reports::PassOn;
use stall::INTERRUPTED;

/// More workers than CPUs.
const WORKERS: usize = 4;
/// The idle time after which threads of the pool end. They are gone when the driver rests.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
const LAST_CALL: Duration = Duration::from_secs(10);
const TIMINGS: [(&str, Timing); 2] = [("exact", Timing::Exact), ("ticked", Timing::Ticked)];

/// The name of the short-lived runtimes.
const VISITOR: &str = "visitor";

/// Any free port.
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

pub(crate) fn run(sabotage: Option<Sabotage>) -> Result<()> {
    // Formats the log and discards it.
    tracing_subscriber::fmt().with_writer(io::sink).init();
    let announcer = Announcer::start();
    let exporter = shotclock::prometheus::install(ANY)?;
    let poll_counts = PollCounts::new(sabotage == Some(Sabotage::Polls));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_keep_alive(KEEP_ALIVE)
        .enable_all()
        .build()?;
    let mut watchdogs = Vec::new();
    let mut apps = Vec::new();
    for (name, timing) in TIMINGS {
        let watchdog = watchdog(timing, &announcer, sabotage)?;
        apps.push(App::new(
            name,
            &watchdog,
            &announcer,
            &poll_counts,
            sabotage,
        )?);
        watchdogs.push(watchdog);
    }
    exporter.show_page(&watchdogs[0]);
    let _guard = watchdogs[0].guard("main", runtime.handle());
    // At the start, so that their series exist from the beginning.
    drop(watchdogs[0].guard(VISITOR, runtime.handle()));
    let metrics = exporter.local_addr().unwrap_or(ANY);
    serve(
        &runtime,
        app::router(&apps, &poll_counts),
        metrics,
        &announcer,
    )?;

    obey(&announcer, &poll_counts, &watchdogs)?;
    if sabotage == Some(Sabotage::Abort) {
        std::process::abort();
    }
    drop(apps);
    runtime.shutdown_timeout(LAST_CALL);
    Ok(())
}

fn watchdog(timing: Timing, announcer: &Announcer, sabotage: Option<Sabotage>) -> Result<Watchdog> {
    let pass_on = PassOn {
        announcer: announcer.clone(),
        twice: sabotage == Some(Sabotage::Twice),
    };
    // The default reporter stays, so that spans are kept and stacks are written as in a service.
    let builder = Watchdog::builder().timing(timing).budget(BUDGET);
    let builder = builder.reports_per_second(1_000).reporter(pass_on);
    let builder = match sabotage {
        Some(Sabotage::Dropped) => builder.report_queue(2).on_slow_poll(take_long),
        _ => builder,
    };
    Ok(builder.build()?)
}

fn take_long(_: &SlowPoll) {
    std::thread::sleep(Duration::from_secs(2));
}

fn serve(
    runtime: &Runtime,
    router: axum::Router,
    metrics: SocketAddr,
    announcer: &Announcer,
) -> Result<()> {
    let listener = runtime.block_on(TcpListener::bind(ANY))?;
    let service = listener.local_addr()?;
    runtime.spawn(async move { axum::serve(listener, router).await });
    announcer.tell(News::Serves {
        service: service.to_string(),
        metrics: metrics.to_string(),
    });
    Ok(())
}

/// Executes the driver's commands until the driver is gone.
fn obey(announcer: &Announcer, poll_counts: &PollCounts, watchdogs: &[Watchdog]) -> Result<()> {
    for line in io::stdin().lines() {
        match line?.as_str() {
            "count" => count(announcer, poll_counts),
            "flush" => {
                let mut flushed = watchdogs.iter().map(|watchdog| watchdog.flush(LAST_CALL));
                let whole = flushed.all(|flushed| flushed);
                announcer.tell(News::Flushed { whole });
            }
            other => return Err(format!("asked for {other:?}").into()),
        }
    }
    Ok(())
}

fn count(announcer: &Announcer, poll_counts: &PollCounts) {
    for (watch, count) in poll_counts.read() {
        announcer.tell(News::Count { watch, count });
    }
    let interrupted = INTERRUPTED.load(Relaxed);
    let allocated = heap::live() as u64;
    announcer.tell(News::Counted {
        interrupted,
        allocated,
    });
}

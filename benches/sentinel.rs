//! What the sentinel costs while polls are in flight, while nothing is, and for each stall; and how
//! soon it tells. Not a contest: figures of its own threads, as the scheduler accounts them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use shotclock::{Phase, SlowPoll, Watchdog};

const SECONDS: u64 = 10;
const WORKERS: usize = 4;
const BUDGET: Duration = Duration::from_millis(10);
const STALLS: usize = 300;

/// The threads that look at polls, and publish the time.
fn threads_of_ours() -> Vec<PathBuf> {
    let threads = fs::read_dir("/proc/self/task").expect("this bench is for Linux");
    let threads = threads.filter_map(|thread| Some(thread.ok()?.path()));
    let is_ours = |thread: &PathBuf| {
        let name = fs::read_to_string(thread.join("comm"));
        name.is_ok_and(|name| ["shotclock-watch", "shotclock-ticks"].contains(&name.trim()))
    };
    threads.filter(is_ours).collect()
}

fn cpu_time(threads: &[PathBuf]) -> Duration {
    threads.iter().map(|thread| cpu_time_of(thread)).sum()
}

fn cpu_time_of(thread: &Path) -> Duration {
    let account = fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
    let nanos = account.split(' ').next().and_then(|n| n.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

fn sleeps(threads: &[PathBuf]) -> u64 {
    threads.iter().map(|thread| sleeps_of(thread)).sum()
}

fn sleeps_of(thread: &Path) -> u64 {
    let status = fs::read_to_string(thread.join("status")).unwrap_or_default();
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.and_then(|n| n.trim().parse().ok()).unwrap_or_default()
}

fn main() {
    // `cargo bench` passes arguments that are meant for criterion.
    let (tx, reports) = mpsc::channel();
    let report = move |slow: &SlowPoll| {
        let _ = tx.send(slow.clone());
    };
    let builder = Watchdog::builder().without_tracing().budget(BUDGET);
    let builder = builder.reports_per_second(u32::MAX).on_slow_poll(report);
    let watchdog = builder.build().expect("the settings are good");
    println!("{}\n", watchdog.capabilities());
    let threads = threads_of_ours();

    let before = (cpu_time(&threads), sleeps(&threads));
    in_flight(&watchdog);
    let used = cpu_time(&threads) - before.0;
    let wakes = (sleeps(&threads) - before.1) / SECONDS;
    let share = used.as_secs_f64() / SECONDS as f64 * 100.0;
    println!("{WORKERS} workers in flight, budget {BUDGET:?}, {SECONDS} s: {used:.1?} of cpu");
    println!("goal: share of a core: {share:.2} %, at most 0.50 ({wakes} wake-ups a second)");

    sleep(Duration::from_secs(1));
    let before = sleeps(&threads);
    sleep(Duration::from_secs(SECONDS));
    let wakes = sleeps(&threads) - before;
    println!("goal: wake-ups in {SECONDS} s with nothing in flight: {wakes}, at most 0");

    let told: Vec<_> = reports.try_iter().collect();
    println!("(reports so far: {})", told.len());
    stalls(&watchdog, &threads, &reports);
}

/// Threads whose polls wait for a good part of their budget, one after the other.
fn in_flight(watchdog: &Watchdog) {
    let watch = watchdog.watch("in flight");
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let start = Instant::now();
                while start.elapsed() < Duration::from_secs(SECONDS) {
                    let _poll = watch.enter();
                    sleep(BUDGET * 6 / 10);
                }
            });
        }
    });
}

fn stalls(watchdog: &Watchdog, threads: &[PathBuf], reports: &mpsc::Receiver<SlowPoll>) {
    let watch = watchdog.watch("stalls");
    let before = cpu_time(threads);
    for _ in 0..STALLS {
        let _poll = watch.enter();
        sleep(BUDGET + BUDGET / 2);
    }
    let used = cpu_time(threads) - before;
    watchdog.flush(Duration::from_secs(10));
    let mut late: Vec<_> = reports
        .try_iter()
        .filter(|slow| slow.phase == Phase::Running && &*slow.watch == "stalls")
        .inspect(|slow| assert!(slow.stack.is_some(), "{slow:?}"))
        .map(|slow| slow.elapsed - BUDGET)
        .collect();
    late.sort();
    let micros = used.as_secs_f64() * 1e6 / STALLS as f64;
    println!("a stall (its looks, its stack and its report): {micros:.0} µs of the sentinel's cpu");
    let (Some(worst), count) = (late.last(), late.len()) else {
        return;
    };
    let median = late[count / 2];
    println!("{count} of {STALLS} stalls reported while they ran, after the budget by");
    println!("goal: {median:.0?} in the median, {worst:.0?} at most; 2.5ms allowed");
}

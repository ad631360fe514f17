//! How what happens beside the polls grows: a look of the sentinel with the threads, a batch for the metrics and
//! a scrape with the watches and the threads that polled them. Each size in a process of its own, because slots
//! and watches stay for as long as the process lives.
//!
//! A look is measured from outside: the sentinel's processor time over some seconds, by the number of times that
//! it slept. The threads really are there, each with a poll in flight (or only with a slot, beside a single one
//! in flight). Not a contest: medians of one run.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use shotclock::prometheus::Exporter;
use shotclock::{Watch, Watchdog};
use shotclock_peers::{in_a_fresh_process, is_measuring, subject};

const THREADS: [usize; 5] = [1, 16, 64, 256, 1_024];
const WATCHES: [usize; 3] = [1, 100, 1_000];
const POLLERS: [usize; 3] = [1, 16, 64];
const SECONDS: u64 = 3;
const BATCHES: usize = 31;

// A look of the sentinel ---------------------------------------------------------------------------

fn sentinel() -> PathBuf {
    let threads = fs::read_dir("/proc/self/task").expect("this bench is for Linux");
    let mut threads = threads.filter_map(|thread| Some(thread.ok()?.path()));
    let is_it = |thread: &PathBuf| {
        let name = fs::read_to_string(thread.join("comm"));
        name.is_ok_and(|name| name.trim() == "shotclock-watch")
    };
    threads.find(is_it).expect("a watchdog was built")
}

/// Nanoseconds that it has had a processor, and how often it slept.
fn account(thread: &Path) -> (f64, f64) {
    let account = fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
    let nanos = account.split(' ').next().and_then(|n| n.parse().ok());
    let status = fs::read_to_string(thread.join("status")).unwrap_or_default();
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    let sleeps = line.and_then(|n| n.trim().parse().ok());
    (nanos.unwrap_or_default(), sleeps.unwrap_or_default())
}

fn watchdog() -> Watchdog {
    let builder = Watchdog::builder().without_tracing().max_watches(2_000);
    builder.build().expect("the settings are good")
}

/// Nanoseconds of a look, and how many there are in a second.
fn look(threads: usize, in_flight: bool) -> [f64; 2] {
    let watchdog = watchdog();
    // Its budget is the interval of the looks.
    let often = watchdog.watch("often");
    let never_slow = watchdog.watch("in flight").with_budget(Duration::MAX);
    let [all_are_there, all_may_go] = [(); 2].map(|()| Barrier::new(threads + 1));
    let mut measured = [0.0; 2];
    thread::scope(|scope| {
        for number in 0..threads {
            let (often, never_slow) = (&often, &never_slow);
            let (all_are_there, all_may_go) = (&all_are_there, &all_may_go);
            scope.spawn(move || {
                drop(often.enter());
                let _poll = (in_flight || number == 0).then(|| never_slow.enter());
                all_are_there.wait();
                all_may_go.wait();
            });
        }
        all_are_there.wait();
        let sentinel = sentinel();
        // One-time work of each thread is done by then.
        sleep(Duration::from_millis(500));
        let before = account(&sentinel);
        sleep(Duration::from_secs(SECONDS));
        let after = account(&sentinel);
        let looks = after.1 - before.1;
        measured = [(after.0 - before.0) / looks, looks / SECONDS as f64];
        all_may_go.wait();
    });
    measured
}

fn print_looks() {
    println!(
        "{:8} {:>22} {:>12} {:>12} {:>22}",
        "threads", "in flight: µs a look", "ns a thread", "% of a core", "idle: µs a look"
    );
    for threads in THREADS {
        let busy = in_a_fresh_process(&format!("look {threads} busy"));
        let idle = in_a_fresh_process(&format!("look {threads} idle"));
        println!(
            "{threads:8} {:22.1} {:12.0} {:12.3} {:22.1}",
            busy[0] / 1e3,
            busy[0] / threads as f64,
            busy[0] * busy[1] / 1e7,
            idle[0] / 1e3
        );
    }
}

// A batch for the metrics, and a scrape ------------------------------------------------------------

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn nanos(mut f: impl FnMut()) -> f64 {
    let taken = (0..BATCHES).map(|_| {
        let start = Instant::now();
        f();
        start.elapsed().as_nanos() as f64
    });
    median(taken.collect())
}

/// Nanoseconds of a batch and of a scrape, and how many bytes the text has.
fn publish(watches: usize, threads: usize) -> [f64; 3] {
    let watchdog = watchdog();
    let watches: Vec<Watch> = (0..watches)
        .map(|number| watchdog.watch(format!("watch {number}")))
        .collect();
    let all_are_there = Barrier::new(threads);
    let poll = || {
        all_are_there.wait();
        watches.iter().for_each(|watch| drop(watch.enter()));
        // A thread that comes later would have the slot of one that has ended.
        all_are_there.wait();
    };
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(poll))));
    let handle = shotclock::prometheus::builder().install_recorder();
    let exporter = Exporter::new(handle.expect("there is no other recorder"));
    let batch = nanos(|| watchdog.publish_metrics());
    let scrape = nanos(|| drop(exporter.render()));
    [batch, scrape, exporter.render().len() as f64]
}

fn print_batches() {
    println!(
        "\n{:8} {:>8} {:>16} {:>18} {:>18} {:>12}",
        "watches", "threads", "a batch, µs", "a scrape, µs", "ns of it a watch", "KB of text"
    );
    for watches in WATCHES {
        for threads in POLLERS {
            let figures = in_a_fresh_process(&format!("publish {watches} {threads}"));
            println!(
                "{watches:8} {threads:8} {:16.1} {:18.1} {:18.0} {:12.1}",
                figures[0] / 1e3,
                figures[1] / 1e3,
                figures[1] / watches as f64,
                figures[2] / 1e3
            );
        }
    }
}

fn main() {
    let Some(subject) = subject() else {
        if is_measuring() {
            print_looks();
            print_batches();
        }
        return;
    };
    let words: Vec<_> = subject.split(' ').collect();
    let number = |word: &str| word.parse().expect("a number");
    let figures = match words[..] {
        ["look", threads, how] => look(number(threads), how == "busy").to_vec(),
        ["publish", watches, threads] => publish(number(watches), number(threads)).to_vec(),
        _ => panic!("unknown: {subject}"),
    };
    figures.iter().for_each(|figure| println!("{figure}"));
}

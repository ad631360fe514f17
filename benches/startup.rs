//! What the first watchdog of a process costs, where that goes, and what is left for later: for the first poll
//! of a thread and for the first slow poll, which a worker would have to bear. Each is measured in many fresh
//! processes, because it happens once in each.
//!
//! Not a contest: medians, and the worst of all.

use std::hint::black_box;
use std::thread::sleep;
use std::time::{Duration, Instant};

use shotclock::{Stacks, Watch, Watchdog};
use shotclock_peers::{in_a_fresh_process, is_measuring, subject};

const PROCESSES: usize = 60;
const BUDGET: Duration = Duration::from_millis(10);
const GOAL: Duration = Duration::from_millis(30);

struct Subject {
    /// What a process is called with.
    name: &'static str,
    measure: fn() -> Vec<Duration>,
    /// What its figures are.
    figures: &'static [&'static str],
}

const SUBJECTS: &[Subject] = &[
    Subject {
        name: "build",
        measure: || vec![taken(|| build(Stacks::Auto)), taken(|| build(Stacks::Auto))],
        figures: &["the first Watchdog::build", "the second one"],
    },
    Subject {
        name: "parts",
        measure: || vec![taken(quanta::Clock::new), taken(|| build(Stacks::Never))],
        figures: &[
            "of it: measuring the clock, by quanta",
            "of it: threads and all the rest, without stacks",
        ],
    },
    Subject {
        name: "stacks",
        measure: || {
            black_box(quanta::Clock::new());
            vec![taken(|| build(Stacks::Auto))]
        },
        figures: &["of it: the same with stacks"],
    },
    Subject {
        name: "later",
        measure: later,
        figures: &[
            "the end of a thread's first poll",
            "the end of its second one",
            "the end of the first slow poll",
            "the end of the tenth slow one",
        ],
    },
];

fn taken<T>(f: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    let made = f();
    let taken = start.elapsed();
    // The threads of a watchdog are let go of when all is measured.
    std::mem::forget(made);
    taken
}

fn build(stacks: Stacks) -> Watchdog {
    let builder = Watchdog::builder().without_tracing().budget(BUDGET);
    let report = |slow: &shotclock::SlowPoll| drop(black_box(slow.to_string()));
    let builder = builder.stacks(stacks).on_slow_poll(report);
    builder.build().expect("threads can be started")
}

/// The time that the end of a section takes.
fn end(watch: &Watch, inner: impl FnOnce()) -> Duration {
    let entered = watch.enter();
    inner();
    taken(|| drop(entered))
}

fn later() -> Vec<Duration> {
    let watchdog = build(Stacks::Auto);
    let watch = watchdog.watch("startup");
    let fast = [(); 2].map(|()| end(&watch, || ()));
    let slow = [(); 10].map(|()| end(&watch, || sleep(BUDGET + BUDGET / 2)));
    vec![fast[0], fast[1], slow[0], slow[9]]
}

fn main() {
    if let Some(asked) = subject() {
        let found = SUBJECTS.iter().find(|subject| subject.name == asked);
        let measured = found.map(|subject| (subject.measure)());
        for figure in measured.unwrap_or_default() {
            println!("{}", figure.as_nanos());
        }
        return;
    }
    if !is_measuring() {
        return;
    }
    println!(
        "{:52} {:>10} {:>10}",
        format!("{PROCESSES} processes each"),
        "median",
        "worst"
    );
    for Subject { name, figures, .. } in SUBJECTS {
        let processes: Vec<_> = (0..PROCESSES).map(|_| in_a_fresh_process(name)).collect();
        for (place, figure) in figures.iter().enumerate() {
            let nanos = processes.iter().map(|figures| figures[place]);
            let mut taken: Vec<_> = nanos.map(|n| Duration::from_nanos(n as u64)).collect();
            taken.sort();
            let (median, worst) = (taken[PROCESSES / 2], taken[PROCESSES - 1]);
            println!("{figure:52} {median:>10.1?} {worst:>10.1?}");
        }
    }
    println!("goal: the first Watchdog::build, at most {GOAL:?}");
}

//! Assertions on a busy machine: 8 processes beside the test keep all CPUs busy.
//!
//! A fast poll must never fail, and a slow one must always fail. The same runs also compare elapsed times, which cannot
//! distinguish the two. The long version prints the table of docs/poll-budgets.md:
//!
//! ```sh
//! cargo test --release --test poll_budget_noise -- --ignored --nocapture
//! ```

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::thread;
use std::time::{Duration, Instant};

use common::{Spinners, compute};
use futures::FutureExt as _;
use futures::future::poll_fn;
use shotclock::assert_poll_budget;
use tokio::task::yield_now;

const MS: Duration = Duration::from_millis(1);
const BUDGET: Duration = Duration::from_millis(5);
const SPINNERS: usize = 8;

/// The work that a test holds to its budget.
#[derive(Clone, Copy)]
enum Work {
    /// Ten polls that compute for 1 ms each.
    InTime,
    /// One poll that computes for 8 ms.
    Computes,
    /// One poll that sleeps for 8 ms.
    Sleeps,
}

impl Work {
    async fn run(self) {
        match self {
            Work::InTime => {
                for _ in 0..10 {
                    compute(MS);
                    yield_now().await;
                }
            }
            Work::Computes => compute(8 * MS),
            Work::Sleeps => thread::sleep(8 * MS),
        }
    }
}

/// The number of failed runs, by charged time and by elapsed time.
#[derive(Debug, Default, PartialEq)]
struct Failed {
    by_charged: u32,
    by_elapsed: u32,
}

fn fail(work: Work, runs: u32) -> Failed {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut failed = Failed::default();
    for _ in 0..runs {
        let (by_charged, longest) = runtime.block_on(run(work));
        failed.by_charged += u32::from(by_charged);
        failed.by_elapsed += u32::from(longest > BUDGET);
    }
    failed
}

/// Returns whether the assertion failed, and the longest elapsed time.
async fn run(work: Work) -> (bool, Duration) {
    let mut longest = Duration::ZERO;
    let by_charged = {
        let mut running = pin!(work.run());
        let timed = poll_fn(|cx| {
            let begun = Instant::now();
            let polled = running.as_mut().poll(cx);
            longest = longest.max(begun.elapsed());
            polled
        });
        let held = AssertUnwindSafe(assert_poll_budget!(BUDGET, timed));
        let held = held.catch_unwind().await;
        if let (Err(why), Work::InTime) = (&held, work) {
            println!("{}", why.downcast_ref::<String>().unwrap());
        }
        held.is_err()
    };
    (by_charged, longest)
}

/// Silences panics, which this test only counts.
fn quietly<T>(run: impl FnOnce() -> T) -> T {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let result = run();
    std::panic::set_hook(hook);
    result
}

/// Runs all three beside the spinning processes.
fn runs(count: u32) -> [Failed; 3] {
    let _spinners = Spinners::start(SPINNERS);
    quietly(|| [Work::InTime, Work::Computes, Work::Sleeps].map(|work| fail(work, count)))
}

#[test]
fn assertion_beside_spinning_processes_fails_for_slow_polls_only() {
    const RUNS: u32 = 20;
    let [in_time, computes, sleeps] = runs(RUNS).map(|failed| failed.by_charged);
    assert_eq!(computes, RUNS);
    // A host may pause the virtual machine for some milliseconds without a notice. That adds to a poll that computes,
    // and excuses one that sleeps. It is rare: not twice in a run.
    assert!(in_time <= 1, "{in_time} of {RUNS}");
    assert!(sleeps + 1 >= RUNS, "{sleeps} of {RUNS}");
}

#[test]
#[ignore = "takes two minutes: the table of docs/poll-budgets.md"]
fn assertion_beside_spinning_processes_500_times() {
    const RUNS: u32 = 500;
    let failed = runs(RUNS);
    println!(
        "\n| a test, {RUNS} times, beside {SPINNERS} spinning processes | fails by charged time | fails by \
         the wall |\n|---|---|---|"
    );
    let names = [
        "ten polls of 1 ms of work, budget 5 ms",
        "a poll that computes for 8 ms, budget 5 ms",
        "a poll that sleeps for 8 ms, budget 5 ms",
    ];
    for (name, failed) in names.iter().zip(&failed) {
        let Failed {
            by_charged,
            by_elapsed,
        } = failed;
        println!("| {name} | {by_charged} | {by_elapsed} |");
    }
    let by_charged = failed.map(|failed| failed.by_charged);
    assert_eq!(by_charged, [0, RUNS, RUNS]);
}

//! Reports with stacks, summed by culprit.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use shotclock::prometheus::install;
use shotclock::report::{Culprit, Culprits};
use shotclock::{Cause, Watchdog};
use tracing_subscriber::fmt::MakeWriter;

const MS: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(60);

#[inline(never)]
fn sleep_in_the_cellar(time: Duration) {
    thread::sleep(time);
}

#[inline(never)]
fn count_the_stars(time: Duration) {
    common::compute(time);
}

fn ready(builder: shotclock::WatchdogBuilder) -> Watchdog {
    let watchdog = builder.budget(5 * MS).build().unwrap();
    // The first stacks need the unwind tables.
    assert!(watchdog.capabilities().to_string().contains("stacks"));
    watchdog
}

/// Polls until the condition holds.
fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let seen = (0..100).find_map(|_| look());
    seen.expect("it happens in one of a hundred tries")
}

fn of(culprits: &Culprits, function: &str) -> Option<Culprit> {
    let mut all = culprits.iter();
    all.find(|culprit| culprit.function.contains(function))
        .cloned()
}

#[test]
fn culprits_are_summed_by_function_for_metrics_and_flame_graphs() {
    let exporter = install("127.0.0.1:0".parse().unwrap()).unwrap();
    let watchdog = ready(Watchdog::builder().without_tracing());
    let watch = watchdog.watch("culprits");
    // On a busy host a poll may be starved, or have a part of its stack only.
    let mut rounds = 0;
    let culprits = until(|| {
        rounds += 1;
        {
            let _poll = watch.enter();
            sleep_in_the_cellar(30 * MS);
        }
        {
            let _poll = watch.enter();
            count_the_stars(20 * MS);
        }
        assert!(watchdog.flush(PATIENCE));
        let culprits = watchdog.culprits();
        let slept = of(&culprits, "sleep_in_the_cellar").is_some_and(|culprit| culprit.count >= 3);
        let computed = culprits.folded().contains(";culprits::count_the_stars;");
        (slept && computed).then_some(culprits)
    });

    let sleeper = of(&culprits, "sleep_in_the_cellar").unwrap();
    assert_eq!(&*sleeper.watch, "culprits");
    assert!(sleeper.cause.to_string().contains("nanosleep"), "{sleeper}");
    assert!(sleeper.over_budget > Duration::ZERO, "{sleeper}");
    assert!(
        sleeper
            .place
            .as_ref()
            .unwrap()
            .starts_with("tests/culprits.rs:")
    );
    // The stacks of the computing poll show different functions.
    let is_computing = |culprit: &&Culprit| culprit.cause == Cause::Computing;
    assert!(
        culprits.iter().any(|culprit| is_computing(&culprit)),
        "{culprits}"
    );
    // Several stacks of one poll in one function count once.
    assert!(
        culprits.iter().all(|culprit| culprit.count <= rounds),
        "{culprits}"
    );

    let folded = culprits.folded();
    let line = folded
        .lines()
        .find(|line| line.contains("sleep_in_the_cellar"));
    let (stack, micros) = line.unwrap().rsplit_once(' ').unwrap();
    assert!(stack.starts_with("culprits;"), "{folded}");
    assert!(
        stack.ends_with("sleep"),
        "from the outermost to the innermost: {folded}"
    );
    let sum: u64 = folded
        .lines()
        .filter(|line| line.contains("cellar"))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
        .sum();
    assert!(micros.parse::<u64>().unwrap() <= sum);
    // Each line is rounded down.
    let over_budget = sleeper.over_budget.as_micros() as u64;
    assert!(
        sum <= over_budget && sum + 10 >= over_budget,
        "{sleeper} {folded}"
    );

    let text = exporter.render();
    let series = text
        .lines()
        .find(|line| {
            line.starts_with(r#"shotclock_culprit_over_budget_seconds_total{watch="culprits","#)
                && line.contains("sleep_in_the_cellar")
        })
        .unwrap_or_else(|| panic!("{text}"));
    let seconds: f64 = series.rsplit_once(' ').unwrap().1.parse().unwrap();
    assert!(
        (seconds - sleeper.over_budget.as_secs_f64()).abs() < 1e-6,
        "{series}"
    );
}

/// A log for the test to read.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[test]
fn repetition_is_logged_without_its_stack() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    let watchdog = tracing::subscriber::with_default(subscriber, || ready(Watchdog::builder()));
    let watch = watchdog.watch("again");
    let log = until(|| {
        {
            let _poll = watch.enter();
            sleep_in_the_cellar(30 * MS);
        }
        assert!(watchdog.flush(PATIENCE));
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        log.contains(" repetition=2 ").then_some(log)
    });
    let mut polls_by_stack = HashMap::<_, HashSet<_>>::new();
    for line in log.lines() {
        assert!(line.contains("elapsed_ms="), "{log}");
        let (_, poll) = line.rsplit_once("report_id=").unwrap();
        match line.split_once("stack=") {
            Some((_, stack)) => {
                assert!(
                    stack.contains("hint=") && !line.contains("repetition="),
                    "{log}"
                );
                let (stack, _) = stack.split_once(" thread=").unwrap();
                polls_by_stack.entry(stack).or_default().insert(poll);
            }
            // Without a stack the report has no culprit.
            None => assert!(
                line.contains("hint=") != line.contains("repetition="),
                "{log}"
            ),
        }
    }
    // All reports of one poll are logged alike, and no other poll logs that stack.
    assert!(!polls_by_stack.is_empty());
    assert!(
        polls_by_stack.values().all(|polls| polls.len() == 1),
        "{log}"
    );
}

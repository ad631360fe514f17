//! Reports that carry a stack, added up by the function that held the worker.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use shotclock::prometheus::install;
use shotclock::{Cause, Culprit, Watchdog};
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

fn ready(builder: shotclock::Builder) -> Watchdog {
    let watchdog = builder.budget(5 * MS).build().unwrap();
    // The first stacks need what is read at the beginning.
    assert!(watchdog.capabilities().to_string().contains("stacks"));
    watchdog
}

#[test]
fn they_are_added_up_by_function_and_told_to_prometheus_and_to_flame_graphs() {
    let exporter = install("127.0.0.1:0".parse().unwrap()).unwrap();
    let watchdog = ready(Watchdog::builder().without_tracing());
    let watch = watchdog.watch("culprits");
    for _ in 0..3 {
        let _poll = watch.enter();
        sleep_in_the_cellar(30 * MS);
    }
    {
        let _poll = watch.enter();
        count_the_stars(20 * MS);
    }
    assert!(watchdog.flush(PATIENCE));

    let culprits = watchdog.culprits();
    let of = |function: &str| -> Culprit {
        let mut found = culprits
            .iter()
            .filter(|culprit| culprit.function.contains(function));
        found
            .next()
            .unwrap_or_else(|| panic!("{function} is not in\n{culprits}"))
            .clone()
    };
    let sleeper = of("sleep_in_the_cellar");
    assert_eq!((&*sleeper.watch, sleeper.count), ("culprits", 3));
    assert!(sleeper.cause.to_string().contains("nanosleep"), "{sleeper}");
    assert!(sleeper.over_budget >= 3 * 25 * MS, "{sleeper}");
    assert!(
        sleeper
            .place
            .as_ref()
            .unwrap()
            .starts_with("tests/culprits.rs:")
    );
    // The one that computes is seen now in one function and now in another.
    let is_computing = |culprit: &&Culprit| culprit.cause == Cause::Computing;
    let mut computing = culprits.iter().filter(is_computing).peekable();
    assert!(computing.peek().is_some(), "{culprits}");
    assert!(computing.all(|culprit| culprit.count == 1), "{culprits}");

    let folded = culprits.folded();
    let line = folded
        .lines()
        .find(|line| line.contains("sleep_in_the_cellar"));
    let (stack, micros) = line.unwrap().rsplit_once(' ').unwrap();
    assert!(stack.starts_with("culprits;"), "{folded}");
    assert!(folded.contains(";culprits::count_the_stars;"), "{folded}");
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
    assert!(sum >= 75_000, "{folded}");

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

/// A log that is read afterwards.
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
fn the_same_again_is_logged_in_short() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    let watchdog = tracing::subscriber::with_default(subscriber, || ready(Watchdog::builder()));
    let watch = watchdog.watch("again");
    for _ in 0..3 {
        let _poll = watch.enter();
        sleep_in_the_cellar(30 * MS);
    }
    assert!(watchdog.flush(PATIENCE));
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let ends: Vec<_> = log.lines().filter(|line| line.contains("slow ")).collect();
    assert_eq!(ends.len(), 3, "{log}");
    assert!(
        ends[0].contains("stack=") && ends[0].contains("hint="),
        "{log}"
    );
    for (end, again) in [(ends[1], "again=1"), (ends[2], "again=2")] {
        assert!(end.contains(again) && !end.contains("stack="), "{log}");
        assert!(end.contains("elapsed_ms="), "{log}");
    }
}

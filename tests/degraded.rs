//! Processes without some capability: polls are still reported, and the report names what is missing. Each scenario has its
//! own process.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::os::unix::process::ExitStatusExt as _;
use std::sync::mpsc;
use std::time::Duration;

use common::{child_of, in_a_child, scenario, stacks};
use rustix::process::{DumpableBehavior, Signal, getpid, kill_process, set_dumpable_behavior};
use shotclock::report::Stack;
use shotclock::{Capability, Cause, Phase, SlowPoll, Watchdog};

const PATIENCE: Duration = Duration::from_secs(60);
const SIGNAL: &str = "signal ";

/// Runs the scenario of a child process. It is no test by itself.
#[test]
fn child() {
    match scenario().as_deref() {
        Some("taken before") => taken_before(),
        Some("taken later") => taken_later(),
        Some("another signal") => another_signal(),
        Some("not dumpable") => not_dumpable(),
        Some(scenario) => scenario
            .strip_prefix(SIGNAL)
            .into_iter()
            .for_each(no_such_signal),
        None => {}
    }
}

/// Returns the first report of a poll that sleeps.
fn stuck(watchdog: &Watchdog, reports: &mpsc::Receiver<SlowPoll>) -> SlowPoll {
    let watch = watchdog.watch("stuck");
    let _poll = watch.enter();
    std::thread::sleep(Duration::from_millis(200));
    reports.recv_timeout(PATIENCE).unwrap()
}

fn assert_counted(watchdog: &Watchdog) {
    let stats = watchdog.watch("stuck").stats();
    assert_eq!((stats.polls, stats.slow_polls), (1, 1));
}

fn watchdog(signal: Option<Signal>) -> (Watchdog, mpsc::Receiver<SlowPoll>) {
    let (tx, reports) = mpsc::channel();
    let report = move |slow: &SlowPoll| drop(tx.send(slow.clone()));
    let mut builder = Watchdog::builder().without_tracing().on_slow_poll(report);
    if let Some(signal) = signal {
        builder = builder.stack_signal(signal.as_raw());
    }
    (builder.build().unwrap(), reports)
}

/// A foreign handler for SIGURG, which counts its signals.
struct Foreign {
    runtime: tokio::runtime::Runtime,
    signals: tokio::signal::unix::Signal,
}

fn take_the_signal() -> Foreign {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let entered = runtime.enter();
    let kind = tokio::signal::unix::SignalKind::from_raw(Signal::URG.as_raw());
    let signals = tokio::signal::unix::signal(kind).unwrap();
    drop(entered);
    Foreign { runtime, signals }
}

impl Foreign {
    /// Asserts that it got none of our signals, and gets others.
    fn assert_only_its_own(mut self) {
        let within = |time: Duration, signals: &mut tokio::signal::unix::Signal| {
            let one = async { tokio::time::timeout(time, signals.recv()).await.is_ok() };
            self.runtime.block_on(one)
        };
        assert!(
            !within(Duration::from_millis(50), &mut self.signals),
            "one of ours"
        );
        kill_process(getpid(), Signal::URG).unwrap();
        assert!(within(PATIENCE, &mut self.signals), "its own did not come");
    }
}

fn is_complete(slow: &SlowPoll) -> bool {
    slow.stack.as_ref().is_some_and(Stack::is_complete)
}

fn taken_before() {
    let foreign = take_the_signal();
    let (watchdog, reports) = watchdog(None);
    let missing = Capability::Unavailable("the signal has another handler".into());
    assert_eq!(stacks(&watchdog), missing);
    let slow = stuck(&watchdog, &reports);
    assert_eq!(slow.phase, Phase::Running);
    assert!(matches!(slow.cause, Cause::Blocked(_)) && !is_complete(&slow));
    assert_counted(&watchdog);
    foreign.assert_only_its_own();
}

fn taken_later() {
    let (watchdog, reports) = watchdog(None);
    assert!(stacks(&watchdog).works());
    let foreign = take_the_signal();
    let slow = stuck(&watchdog, &reports);
    assert!(matches!(slow.cause, Cause::Blocked(_)) && !is_complete(&slow));
    assert_counted(&watchdog);
    foreign.assert_only_its_own();
}

fn another_signal() {
    let foreign = take_the_signal();
    let (watchdog, reports) = watchdog(Some(Signal::WINCH));
    assert!(stacks(&watchdog).works());
    while !is_complete(&stuck(&watchdog, &reports)) {
        // On a busy machine a thread may answer too late.
        while reports.recv_timeout(PATIENCE).unwrap().phase != Phase::Finished {}
    }
    foreign.assert_only_its_own();
}

/// There are no stacks by this signal, and a fault still ends the process.
fn no_such_signal(number: &str) {
    let builder = Watchdog::builder().stack_signal(number.parse().unwrap());
    let missing = Capability::Unavailable("the signal cannot be handled".into());
    assert_eq!(builder.build().unwrap().capabilities().stacks, missing);
    kill_process(getpid(), Signal::FPE).unwrap();
}

fn not_dumpable() {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).unwrap();
    let (watchdog, reports) = watchdog(None);
    println!("{}", watchdog.capabilities());
    if watchdog.capabilities().system_calls.works() {
        println!("SKIPPED in part: this user may look at a process that is not dumpable");
    }
    let slow = stuck(&watchdog, &reports);
    // The system call may be hidden, but not the wait.
    assert!(matches!(slow.cause, Cause::Blocked(_)), "{slow}");
    assert_counted(&watchdog);
}

#[test]
fn stacks_with_a_foreign_handler_are_unavailable() {
    in_a_child("taken before");
}

#[test]
fn stacks_after_a_foreign_handler_was_installed_are_unavailable() {
    in_a_child("taken later");
}

#[test]
fn stacks_by_another_signal_are_captured() {
    in_a_child("another signal");
}

#[test]
fn stacks_of_a_process_that_is_not_dumpable_are_captured() {
    in_a_child("not dumpable");
}

/// For each such signal, `capabilities` gives a reason, and a fault ends the process as before.
#[test]
fn stacks_by_a_fault_signal_are_refused() {
    let faults = [Signal::ILL, Signal::TRAP, Signal::ABORT, Signal::BUS];
    let faults = faults
        .into_iter()
        .chain([Signal::FPE, Signal::SEGV, Signal::SYS]);
    let none = [i32::MIN, -1, 0, 9, 19, 32, 65, i32::MAX];
    // Only the first watchdog of a process installs a handler, so each signal has a process.
    for number in faults.map(Signal::as_raw).chain(none) {
        let status = child_of(&format!("{SIGNAL}{number}")).status;
        assert_eq!(
            status.signal(),
            Some(Signal::FPE.as_raw()),
            "{number}: {status}"
        );
    }
}

//! Where something is taken or hidden, polls are told all the same, and what is missing is said. Each
//! scenario has a process of its own.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{DumpableBehavior, Signal, set_dumpable_behavior};
use shotclock::{Capability, Cause, Phase, SlowPoll, Stack, Watchdog};

const PATIENCE: Duration = Duration::from_secs(60);
const CHILD: &str = "SHOTCLOCK_TEST_SCENARIO";

fn in_a_child(scenario: &str) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["child", "--exact", "--nocapture"]);
    let output = child.env(CHILD, scenario).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{scenario}");
}

/// Not a test by itself: the child of the others.
#[test]
fn child() {
    match std::env::var(CHILD).as_deref() {
        Ok("taken before") => taken_before(),
        Ok("taken later") => taken_later(),
        Ok("another signal") => another_signal(),
        Ok("not dumpable") => not_dumpable(),
        _ => {}
    }
}

/// The first report of a poll that sleeps.
fn stuck(watchdog: &Watchdog, reports: &mpsc::Receiver<SlowPoll>) -> SlowPoll {
    let watch = watchdog.watch("stuck");
    let _poll = watch.enter();
    std::thread::sleep(Duration::from_millis(200));
    reports.recv_timeout(PATIENCE).unwrap()
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

/// Installs a handler for SIGURG that is not ours.
fn take_the_signal() -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let kind = tokio::signal::unix::SignalKind::from_raw(Signal::URG.as_raw());
    let taken = tokio::signal::unix::signal(kind).unwrap();
    std::mem::forget(taken);
    drop(_entered);
    runtime
}

fn is_complete(slow: &SlowPoll) -> bool {
    slow.stack.as_ref().is_some_and(Stack::is_complete)
}

fn taken_before() {
    let _runtime = take_the_signal();
    let (watchdog, reports) = watchdog(None);
    let missing = Capability::Missing("the signal has another handler".into());
    assert_eq!(watchdog.capabilities().stacks, missing);
    let slow = stuck(&watchdog, &reports);
    assert_eq!(slow.phase, Phase::Running);
    assert!(matches!(slow.cause, Cause::Blocked(_)) && !is_complete(&slow));
}

fn taken_later() {
    let (watchdog, reports) = watchdog(None);
    assert!(watchdog.capabilities().stacks.works());
    let _runtime = take_the_signal();
    let slow = stuck(&watchdog, &reports);
    assert!(matches!(slow.cause, Cause::Blocked(_)) && !is_complete(&slow));
}

fn another_signal() {
    let _runtime = take_the_signal();
    let (watchdog, reports) = watchdog(Some(Signal::WINCH));
    assert!(watchdog.capabilities().stacks.works());
    while !is_complete(&stuck(&watchdog, &reports)) {
        // On a busy machine a thread may answer too late.
        while reports.recv_timeout(PATIENCE).unwrap().phase != Phase::Finished {}
    }
}

fn not_dumpable() {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).unwrap();
    let (watchdog, reports) = watchdog(None);
    println!("{}", watchdog.capabilities());
    if watchdog.capabilities().system_calls.works() {
        println!("SKIPPED in part: this user may look at a process that is not dumpable");
    }
    let slow = stuck(&watchdog, &reports);
    // Which call it is may be hidden; that it waits is not.
    assert!(matches!(slow.cause, Cause::Blocked(_)), "{slow}");
}

#[test]
fn somebody_else_has_the_signal() {
    in_a_child("taken before");
}

#[test]
fn somebody_takes_the_signal_later() {
    in_a_child("taken later");
}

#[test]
fn another_signal_can_be_chosen() {
    in_a_child("another signal");
}

#[test]
fn a_process_that_is_not_dumpable() {
    in_a_child("not dumpable");
}

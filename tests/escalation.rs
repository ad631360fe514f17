//! Escalation steps of long stalls, and `allow_blocking`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::Command;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use shotclock::{Escalation, Phase, SlowPoll, Watchdog, WatchdogBuilder, allow_blocking};

const PATIENCE: Duration = Duration::from_secs(60);
const MS: Duration = Duration::from_millis(1);

fn into(tx: Sender<SlowPoll>) -> impl Fn(&SlowPoll) + Send + 'static {
    move |slow| drop(tx.send(slow.clone()))
}

fn watchdog(
    set_up: impl FnOnce(WatchdogBuilder) -> WatchdogBuilder,
) -> (Watchdog, Receiver<SlowPoll>) {
    let (tx, rx) = mpsc::channel();
    let builder = Watchdog::builder().without_tracing().on_slow_poll(into(tx));
    (set_up(builder.budget(10 * MS)).build().unwrap(), rx)
}

fn next(reports: &Receiver<SlowPoll>, is_it: impl Fn(&SlowPoll) -> bool) -> SlowPoll {
    loop {
        let slow = reports.recv_timeout(PATIENCE).unwrap();
        if is_it(&slow) {
            return slow;
        }
    }
}

#[test]
fn escalation_takes_each_step_once_in_spite_of_the_rate_limit() {
    let (tx, called) = mpsc::channel();
    let (watchdog, reports) = watchdog(|builder| {
        builder
            .reports_per_second(0)
            .escalate(40 * MS, Escalation::call(into(tx)))
            .escalate(20 * MS, Escalation::Stacks)
    });
    // Waits until stacks are available.
    println!("{}", watchdog.capabilities());
    let watch = watchdog.watch("stuck");
    let other = watchdog.watch("other").with_budget(PATIENCE);
    let (release, held) = mpsc::channel::<()>();
    let (entered, enters) = mpsc::channel();
    let beside = std::thread::Builder::new().name("beside".into());
    let beside = beside.spawn(move || {
        let _poll = other.enter();
        entered.send(()).unwrap();
        let _ = held.recv();
    });
    enters.recv_timeout(PATIENCE).unwrap();
    let poll = watch.enter();
    let call = called.recv_timeout(PATIENCE).unwrap();
    assert_eq!((&*call.watch, call.phase), ("stuck", Phase::Running));
    assert!(call.elapsed >= 40 * MS && call.other_threads.is_empty());
    drop(poll);
    // The escalation reported it, so its end is reported too. At 0 a second, there is no other report.
    let stacks = next(&reports, |_| true);
    assert!(stacks.elapsed >= 20 * MS);
    let beside_it = stacks
        .other_threads
        .iter()
        .find(|other| other.thread.to_string() == "beside");
    let beside_it = beside_it.unwrap();
    assert_eq!(beside_it.watches, ["other".into()]);
    assert!(stacks.to_string().contains("other thread beside: other"));
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    assert!(
        beside_it
            .stack
            .as_ref()
            .is_some_and(shotclock::report::Stack::is_complete)
    );
    let end = next(&reports, |slow| slow.phase == Phase::Finished);
    assert_eq!((stacks.id, call.id), (end.id, end.id));
    drop(release);
    beside.unwrap().join().unwrap();
    assert!(called.try_recv().is_err(), "called once");
}

const CHILD: &str = "SHOTCLOCK_TEST_ABORTS";

/// Runs the scenario of a child process. It is no test by itself.
#[test]
fn child() {
    if std::env::var_os(CHILD).is_some() {
        let (watchdog, _reports) = watchdog(|b| b.escalate(30 * MS, Escalation::Abort));
        let watch = watchdog.watch("stuck for ever");
        let _poll = watch.enter();
        std::thread::sleep(PATIENCE);
    }
}

#[cfg(unix)]
#[test]
fn escalation_abort_ends_the_process() {
    use std::os::unix::process::ExitStatusExt as _;
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["child", "--exact", "--nocapture"])
        .env(CHILD, "1");
    let output = child.output().unwrap();
    const SIGABRT: i32 = 6;
    assert_eq!(output.status.signal(), Some(SIGABRT), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    let expected = "shotclock: aborting the process: entered section of \"stuck for ever\"";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn allowed_blocking_is_counted_and_not_reported() {
    let (watchdog, reports) = watchdog(|builder| builder);
    let watch = watchdog.watch("allowed");
    let poll = watch.enter();
    let allowed = allow_blocking("reading the configuration", PATIENCE);
    std::thread::sleep(40 * MS);
    drop(allowed);
    drop(poll);
    assert!(watchdog.flush(PATIENCE));
    assert_eq!(watch.stats().slow_polls, 1);
    assert_eq!(reports.try_iter().count(), 0);
}

#[test]
fn allowed_blocking_beyond_its_limit_is_reported() {
    let (watchdog, reports) = watchdog(|builder| builder);
    let watch = watchdog.watch("allowed for too short");
    let poll = watch.enter();
    let allowed = allow_blocking("a small file", 20 * MS);
    // Waits until the limit has passed.
    let told = next(&reports, |_| true);
    assert_eq!(told.phase, Phase::Running);
    assert!(told.elapsed > 20 * MS, "not at the budget: {told}");
    let allowance = told.allowance.as_ref().unwrap();
    assert_eq!(
        (&*allowance.reason, allowance.max),
        ("a small file", 20 * MS)
    );
    assert!(
        told.to_string()
            .contains("past the 20ms allowed for \"a small file\"")
    );
    drop(allowed);
    drop(poll);
    let end = next(&reports, |slow| slow.phase == Phase::Finished);
    assert_eq!((end.id, end.allowance), (told.id, told.allowance));
}

#[test]
fn capabilities_have_a_reason_for_each_missing_one() {
    let (watchdog, _reports) = watchdog(|builder| builder.stacks(shotclock::Stacks::Never));
    let capabilities = watchdog.capabilities();
    assert!(!capabilities.stacks.works());
    let text = capabilities.to_string();
    assert!(text.contains("missing: switched off"), "{text}");
    assert!(text.contains("steal time"), "{text}");
    assert_eq!(text.lines().count(), 9);
}

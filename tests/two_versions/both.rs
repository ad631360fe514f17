//! Two versions of the crate in one process. Both watch, and their signal handlers do not interfere. Each scenario has its own
//! process.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::process::Command;
use std::time::{Duration, Instant};

const SCENARIO: &str = "SHOTCLOCK_TEST_SCENARIO";
const BUDGET: Duration = Duration::from_micros(400);

/// The same code for each version, because their types differ.
macro_rules! version {
    ($name:ident, $version:ident) => {
        mod $name {
            use std::sync::mpsc::{self, Receiver};
            use std::time::Duration;

            use $version::report::Stack;
            use $version::{Capability, Cause, Phase, SlowPoll, Watchdog};

            const PATIENCE: Duration = Duration::from_secs(60);

            pub(crate) struct Watching {
                pub(crate) watchdog: Watchdog,
                reports: Receiver<SlowPoll>,
            }

            impl Watching {
                pub(crate) fn start(signal: libc::c_int) -> Self {
                    let (tx, reports) = mpsc::channel();
                    let report = move |slow: &SlowPoll| drop(tx.send(slow.clone()));
                    let builder = Watchdog::builder().without_tracing();
                    let builder = builder.reports_per_second(u32::MAX).report_queue(100_000);
                    let builder = builder.on_slow_poll(report).stack_signal(signal);
                    Self {
                        watchdog: builder.build().unwrap(),
                        reports,
                    }
                }

                /// Returns why there are no stacks; empty if there are. On a busy machine the test capture may
                /// take long.
                pub(crate) fn stacks(&self) -> String {
                    let know = |_| match self.watchdog.capabilities().stacks {
                        Capability::Available => Some(String::new()),
                        Capability::Unavailable(why) if why.contains("not been tried out yet") => {
                            None
                        }
                        missing => Some(missing.to_string()),
                    };
                    (0..100).find_map(know).expect("it is not tried out")
                }

                /// Waits for a report of a poll that blocks.
                pub(crate) fn wait_for_stall(&self) {
                    let slow = self.reports.recv_timeout(PATIENCE).unwrap();
                    assert_eq!(slow.phase, Phase::Running, "{slow}");
                    assert!(matches!(slow.cause, Cause::Blocked(_)), "{slow}");
                }

                /// Waits for the report of its end.
                pub(crate) fn wait_for_end(&self) {
                    while self.reports.recv_timeout(PATIENCE).unwrap().phase != Phase::Finished {}
                }

                /// Returns the number of whole stacks since the last call.
                pub(crate) fn whole_stacks(&self) -> usize {
                    let stack =
                        |slow: &SlowPoll| slow.stack.as_ref().is_some_and(Stack::is_complete);
                    self.reports.try_iter().filter(|slow| stack(slow)).count()
                }
            }
        }
    };
}

version!(first, shotclock);
version!(second, other);

fn in_a_child(scenario: &str) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["child", "--exact", "--nocapture"]);
    let status = child.env(SCENARIO, scenario).status().unwrap();
    assert!(status.success(), "{scenario}: {status}");
}

/// Runs the scenario of a child process. It is no test by itself.
#[test]
fn child() {
    match std::env::var(SCENARIO).as_deref() {
        Ok("one signal") => one_signal(),
        Ok("two signals") => two_signals(),
        _ => {}
    }
}

fn one_signal() {
    let recorder = shotclock::prometheus::builder().install_recorder();
    let first = first::Watching::start(libc::SIGURG);
    assert_eq!(first.stacks(), "");
    let second = second::Watching::start(libc::SIGURG);
    let why = second.stacks();
    assert!(why.contains("the signal has another handler"), "{why}");

    let watches = (
        first.watchdog.watch("first"),
        second.watchdog.watch("second"),
    );
    for polls in 1..=3 {
        {
            let _of_first = watches.0.enter();
            let _of_second = watches.1.enter();
            std::thread::sleep(Duration::from_millis(200));
            first.wait_for_stall();
            second.wait_for_stall();
        }
        first.wait_for_end();
        second.wait_for_end();
        let (stats, of_second) = (watches.0.stats(), watches.1.stats());
        assert_eq!((stats.polls, stats.slow_polls), (polls, polls));
        assert_eq!((of_second.polls, of_second.slow_polls), (polls, polls));
    }
    // The first version keeps the signal.
    drop(watches.1);
    let mut stacks = 0;
    while stacks == 0 {
        let _poll = watches.0.enter();
        std::thread::sleep(Duration::from_millis(50));
        stacks = first.whole_stacks();
    }
    second.watchdog.publish_metrics();
    let text = shotclock::prometheus::Exporter::new(recorder.unwrap()).render();
    assert!(
        text.contains("shotclock_polls_total{watch=\"second\"} 3\n"),
        "{text}"
    );
    assert!(
        text.contains("shotclock_polls_total{watch=\"first\"} "),
        "{text}"
    );
}

/// Calls the C function. Returns whether it was interrupted.
fn poll() -> bool {
    // SAFETY: of no descriptors, for a millisecond.
    let failed = unsafe { libc::poll(std::ptr::null_mut(), 0, 1) } == -1;
    // SAFETY: the calling thread's own.
    failed && unsafe { *libc::__errno_location() } == libc::EINTR
}

/// With a signal for each version, both capture stacks of the same polls, and no call fails because of it.
fn two_signals() {
    const STACKS: usize = 50;
    let first = first::Watching::start(libc::SIGURG);
    let second = second::Watching::start(libc::SIGWINCH);
    assert_eq!(
        (first.stacks(), second.stacks()),
        (String::new(), String::new())
    );
    let watches = (
        first.watchdog.watch("both").with_budget(BUDGET),
        second.watchdog.watch("both").with_budget(BUDGET),
    );
    let (mut of_first, mut of_second, mut polls, mut interrupted) = (0, 0, 0, 0);
    while of_first < STACKS || of_second < STACKS {
        {
            let _of_first = watches.0.enter();
            let _of_second = watches.1.enter();
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(10) {
                for n in 0..1_000_000_u64 {
                    std::hint::black_box(n);
                }
                interrupted += u32::from(poll());
            }
        }
        polls += 1;
        of_first += first.whole_stacks();
        of_second += second.whole_stacks();
    }
    println!("{polls} polls, {of_first} and {of_second} whole stacks, {interrupted} interrupted");
    assert_eq!(interrupted, 0);
    assert_eq!(
        (watches.0.stats().polls, watches.1.stats().polls),
        (polls, polls)
    );
}

#[test]
fn two_versions_both_watch_and_the_first_has_the_signal() {
    in_a_child("one signal");
}

#[test]
fn two_versions_with_own_signals_both_capture_stacks() {
    in_a_child("two signals");
}

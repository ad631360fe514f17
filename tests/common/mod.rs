//! Helpers for tests: slow polls, starved threads, and failing assertions.

#![allow(dead_code, reason = "each test takes what it needs")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::process::{Child, Command, Output};
use std::time::Duration;

use futures::FutureExt as _;
use rustix::time::{ClockId, clock_gettime};
use shotclock::{Capability, Watchdog};

const CHILD: &str = "SHOTCLOCK_TEST_SCENARIO";

/// Runs the test `child` of this program in a new process, with the scenario of that name.
pub(crate) fn in_a_child(scenario: &str) {
    let output = child_of(scenario);
    assert!(output.status.success(), "{scenario}: {}", output.status);
}

/// Like [`in_a_child`], for a scenario that may fail.
pub(crate) fn child_of(scenario: &str) -> Output {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["child", "--exact", "--nocapture"]);
    let output = child.env(CHILD, scenario).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Returns the scenario of this process, if it is such a child.
pub(crate) fn scenario() -> Option<String> {
    std::env::var(CHILD).ok()
}

/// Returns whether stacks are available here. On a busy machine the test capture may take long.
pub(crate) fn stacks(watchdog: &Watchdog) -> Capability {
    let know = |_| match watchdog.capabilities().stacks {
        Capability::Unavailable(why) if why.contains("not been tried out yet") => None,
        known => Some(known),
    };
    (0..100).find_map(know).expect("it is not tried out")
}

/// Returns the panic message of a future.
pub(crate) async fn failure_of(future: impl Future) -> String {
    let caught = AssertUnwindSafe(future).catch_unwind().await;
    message(caught.err().expect("it should have panicked"))
}

/// Returns the message of a panic.
pub(crate) fn message(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => (*panic.downcast::<&str>().unwrap()).into(),
    }
}

/// Returns the CPU time of this thread.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Computes until this thread has used that much CPU time, also on a busy machine.
pub(crate) fn compute(time: Duration) {
    let end = cpu_time() + time;
    while cpu_time() < end {
        std::hint::black_box((0..100_u64).fold(7, |sum, n| sum ^ n.wrapping_mul(sum)));
    }
}

/// Processes that keep all CPUs busy, until this is dropped.
pub(crate) struct Spinners(Vec<Child>);

impl Spinners {
    pub(crate) fn start(count: usize) -> Self {
        let spin = || {
            Command::new("sh")
                .args(["-c", "while :; do :; done"])
                .spawn()
        };
        Self((0..count).map(|_| spin().unwrap()).collect())
    }
}

impl Drop for Spinners {
    fn drop(&mut self) {
        for spinner in &mut self.0 {
            let _ = spinner.kill();
            let _ = spinner.wait();
        }
    }
}

/// Returns the time of this thread on the run queue so far.
#[cfg(target_os = "linux")]
pub(crate) fn run_queue_wait() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let wait = text.split_whitespace().nth(1).unwrap();
    Duration::from_nanos(wait.parse().unwrap())
}

/// Returns when this thread has been on the run queue for that long.
#[cfg(target_os = "linux")]
pub(crate) fn be_starved(wait: Duration) {
    let _spinners = Spinners::start(2 * std::thread::available_parallelism().unwrap().get());
    while run_queue_wait() < wait {
        compute(Duration::from_micros(100));
    }
}

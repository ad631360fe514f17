//! What tests share: to be slow for certain, to be starved, and to catch an assertion that fails.

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

/// Runs the test `child` of this program in a process of its own, which does what the scenario of that
/// name is.
pub(crate) fn in_a_child(scenario: &str) {
    let output = child_of(scenario);
    assert!(output.status.success(), "{scenario}: {}", output.status);
}

/// As [`in_a_child`], for what need not go well.
pub(crate) fn child_of(scenario: &str) -> Output {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["child", "--exact", "--nocapture"]);
    let output = child.env(CHILD, scenario).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// What this process is to do, if it is such a child.
pub(crate) fn scenario() -> Option<String> {
    std::env::var(CHILD).ok()
}

/// Whether stacks are taken here: on a busy machine it may be long before that was tried out.
pub(crate) fn stacks(watchdog: &Watchdog) -> Capability {
    let know = |_| match watchdog.capabilities().stacks {
        Capability::Unavailable(why) if why.contains("not been tried out yet") => None,
        known => Some(known),
    };
    (0..100).find_map(know).expect("it is not tried out")
}

/// What a future panics with.
pub(crate) async fn failure_of(future: impl Future) -> String {
    let caught = AssertUnwindSafe(future).catch_unwind().await;
    message(caught.err().expect("it should have panicked"))
}

/// The words of a panic.
pub(crate) fn message(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => (*panic.downcast::<&str>().unwrap()).into(),
    }
}

/// How long this thread has had a processor.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Computes until this thread has had a processor for so long: no busy machine makes it less.
pub(crate) fn compute(time: Duration) {
    let end = cpu_time() + time;
    while cpu_time() < end {
        std::hint::black_box((0..100_u64).fold(7, |sum, n| sum ^ n.wrapping_mul(sum)));
    }
}

/// Processes that take every processor, until this is dropped.
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

/// How long this thread has waited for a processor so far.
#[cfg(target_os = "linux")]
pub(crate) fn run_queue_wait() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let wait = text.split_whitespace().nth(1).unwrap();
    Duration::from_nanos(wait.parse().unwrap())
}

/// Returns when this thread has waited for a processor for so long.
#[cfg(target_os = "linux")]
pub(crate) fn be_starved(wait: Duration) {
    let _spinners = Spinners::start(2 * std::thread::available_parallelism().unwrap().get());
    while run_queue_wait() < wait {
        compute(Duration::from_micros(100));
    }
}

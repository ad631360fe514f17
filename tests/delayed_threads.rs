//! A tracer delays a thread of the crate. No stall is missed, and the delay does not count as a suspension of the process.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(
    unsafe_code,
    reason = "only the operating system can hold up one thread"
)]

use std::fs;
use std::future::{Future, poll_fn};
use std::io::{BufRead as _, BufReader, Read as _};
use std::pin::pin;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use shotclock::{Cause, Phase, SlowPoll, Status, Timing, Watch, WatchExt as _, Watchdog};

const BUDGET: Duration = Duration::from_millis(10);
/// The longest wait for an expected event, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const SENTINEL: &str = "shotclock-watch";
const TICKER: &str = "shotclock-ticks";

const TRACED: &str = "SHOTCLOCK_TEST_TRACED";

/// Runs the tracer, in a process of its own. It releases the thread at the end of its input. It is no test by itself.
#[test]
fn tracer() {
    let Ok(thread) = std::env::var(TRACED) else {
        return;
    };
    let thread: libc::pid_t = thread.parse().unwrap();
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: numbers and null pointers only. Only the traced thread is affected.
    let is_held = unsafe {
        libc::ptrace(libc::PTRACE_SEIZE, thread, none, none) == 0
            && libc::ptrace(libc::PTRACE_INTERRUPT, thread, none, none) == 0
            && libc::waitpid(thread, std::ptr::null_mut(), libc::__WALL) == thread
    };
    println!("{}", if is_held { "held" } else { "refused" });
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// A thread that is stopped until this is dropped.
struct HeldUp {
    tracer: Child,
    /// Kept open, because the tracer writes to it.
    _said: ChildStdout,
}

impl HeldUp {
    /// Returns `None` if no process may trace another one.
    fn thread(name: &str) -> Option<Self> {
        // SAFETY: numbers only. Each process of this user may now trace this one.
        unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::c_ulong::MAX) };
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["tracer", "--exact", "--nocapture"])
            .env(TRACED, id_of(name))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut tracer = child.unwrap();
        let mut stdout = tracer.stdout.take().unwrap();
        let lines = BufReader::new(&mut stdout).lines();
        let said = lines.map(|line| line.unwrap()).find_map(|line| {
            let is_held = line.ends_with("held");
            (is_held || line.ends_with("refused")).then_some(is_held)
        });
        if said != Some(true) {
            println!("SKIPPED: no process may trace another one here");
        }
        let held = Self {
            tracer,
            _said: stdout,
        };
        (said == Some(true)).then_some(held)
    }
}

impl Drop for HeldUp {
    fn drop(&mut self) {
        drop(self.tracer.stdin.take());
        let _ = self.tracer.wait();
    }
}

fn id_of(name: &str) -> String {
    let is_it = |task: &std::path::Path| {
        let comm = fs::read_to_string(task.join("comm"));
        comm.is_ok_and(|comm| comm.trim() == name)
    };
    loop {
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        let mut tasks = tasks.map(|task| task.unwrap().path());
        if let Some(task) = tasks.find(|task| is_it(task)) {
            return task.file_name().unwrap().to_str().unwrap().to_owned();
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// One test at a time, because all stop the same threads.
fn alone() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watchdog(timing: Timing) -> (Watchdog, mpsc::Receiver<SlowPoll>) {
    let (tx, reports) = mpsc::channel();
    let report = move |slow: &SlowPoll| drop(tx.send(slow.clone()));
    let builder = Watchdog::builder().without_tracing().on_slow_poll(report);
    let watchdog = builder.budget(BUDGET).timing(timing).build().unwrap();
    (watchdog, reports)
}

/// A poll in flight on another thread, which keeps the sentinel awake.
struct InFlight {
    _ends_it: mpsc::Sender<()>,
}

impl InFlight {
    fn of(watchdog: &Watchdog) -> Self {
        let an_hour = Duration::from_secs(3_600);
        let watch = watchdog.watch("long").with_budget(an_hour);
        let ((begun, is_begun), (end, is_over)) = (mpsc::channel(), mpsc::channel());
        thread::spawn(move || {
            let _poll = watch.enter();
            begun.send(()).unwrap();
            let _ = is_over.recv();
        });
        is_begun.recv().unwrap();
        Self { _ends_it: end }
    }
}

/// Makes one poll of this work.
fn once<T>(watch: &Watch, work: impl FnOnce() -> T) {
    let mut work = Some(work);
    let poll = poll_fn(|_| Poll::Ready(work.take().map(|work| work())));
    let _ = pin!(poll.watched(watch)).poll(&mut Context::from_waker(Waker::noop()));
}

/// A poll blocks while a thread of the crate is stopped. The watchdog reports the poll before that thread runs again.
fn assert_blocked_poll_is_reported(timing: Timing, held_up: &str, is_awake: bool) {
    let _alone = alone();
    let (watchdog, reports) = watchdog(timing);
    let watch = watchdog.watch("blocks");
    let in_flight = is_awake.then(|| InFlight::of(&watchdog));
    if is_awake {
        // The next poll is not a sample, so it is ticked.
        (0..1_000).for_each(|_| once(&watch, || ()));
    }
    let Some(held) = HeldUp::thread(held_up) else {
        return;
    };
    let polls = watch.stats().polls;
    once(&watch, || thread::sleep(Duration::from_millis(400)));
    assert!(watchdog.flush(PATIENCE), "it is never told");
    let stats = watch.stats();
    assert_eq!((stats.polls - polls, stats.slow_polls), (1, 1));
    let told: Vec<SlowPoll> = reports.try_iter().collect();
    let ended = told.last().expect("there is no report");
    assert_eq!(ended.phase, Phase::Finished);
    assert!(matches!(ended.cause, Cause::Blocked(_)), "{ended}");
    drop((held, in_flight));
}

#[test]
fn poll_that_blocks_during_a_delay_of_the_sentinel_is_reported() {
    assert_blocked_poll_is_reported(Timing::Exact, SENTINEL, true);
}

#[test]
fn poll_that_blocks_during_a_delayed_sleep_of_the_sentinel_is_reported() {
    assert_blocked_poll_is_reported(Timing::Exact, SENTINEL, false);
}

#[test]
fn ticked_poll_that_blocks_during_a_delay_of_the_sentinel_is_reported() {
    assert_blocked_poll_is_reported(Timing::Ticked, SENTINEL, true);
}

#[test]
fn poll_that_blocks_during_a_delay_of_the_ticker_is_reported() {
    assert_blocked_poll_is_reported(Timing::Exact, TICKER, true);
}

#[test]
fn ticked_poll_that_blocks_during_a_delay_of_the_ticker_is_reported() {
    assert_blocked_poll_is_reported(Timing::Ticked, TICKER, true);
}

/// The sentinel runs again after the end of the poll.
#[test]
fn poll_that_ended_during_a_delay_of_the_sentinel_is_reported_later() {
    let _alone = alone();
    for timing in [Timing::Exact, Timing::Ticked] {
        let (watchdog, reports) = watchdog(timing);
        let watch = watchdog.watch("blocks");
        let _in_flight = InFlight::of(&watchdog);
        (0..1_000).for_each(|_| once(&watch, || ()));
        let Some(held) = HeldUp::thread(SENTINEL) else {
            return;
        };
        once(&watch, || thread::sleep(Duration::from_millis(100)));
        drop(held);
        assert!(watchdog.flush(PATIENCE), "it is never told");
        assert_eq!(watch.stats().slow_polls, 1, "{timing:?}");
        let told: Vec<SlowPoll> = reports.try_iter().collect();
        assert!(
            told.iter()
                .any(|slow| matches!(slow.cause, Cause::Blocked(_))),
            "{timing:?}: {told:?}"
        );
    }
}

/// `health` reads the polls in flight itself.
#[test]
fn health_during_a_delay_of_the_sentinel_has_the_stall() {
    let _alone = alone();
    for timing in [Timing::Exact, Timing::Ticked] {
        let (watchdog, _reports) = watchdog(timing);
        let watch = watchdog.watch("blocks");
        let _in_flight = InFlight::of(&watchdog);
        (0..1_000).for_each(|_| once(&watch, || ()));
        let Some(_held) = HeldUp::thread(SENTINEL) else {
            return;
        };
        let (stalled, is_stalled) = mpsc::channel();
        let looker = thread::spawn({
            let watchdog = watchdog.clone();
            move || {
                while watchdog.health().status != Status::Stalled {
                    thread::sleep(Duration::from_millis(1));
                }
                stalled.send(()).unwrap();
            }
        });
        once(&watch, || is_stalled.recv_timeout(PATIENCE).unwrap());
        looker.join().unwrap();
    }
}

#[test]
fn health_without_scans_is_unknown() {
    let _alone = alone();
    let (watchdog, _reports) = watchdog(Timing::Exact);
    let _in_flight = InFlight::of(&watchdog);
    let wait_for = |status| {
        while watchdog.health().status != status {
            thread::sleep(Duration::from_millis(1));
        }
        watchdog.health()
    };
    let Some(held) = HeldUp::thread(SENTINEL) else {
        return;
    };
    let health = wait_for(Status::Unknown);
    assert!(health.unseen > Some(Duration::from_secs(1)), "{health}");
    drop(held);
    assert_eq!(wait_for(Status::Responsive).unseen, None);
}

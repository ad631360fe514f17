//! Many kinds of blocking, each in a real runtime: the report has the cause, the system call and the culprit.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::hint::black_box;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use shotclock::report::TimeBreakdown;
use shotclock::{Cause, Phase, SlowPoll, WatchExt as _, Watchdog};

const PATIENCE: Duration = Duration::from_secs(10);

/// The last report of a running poll, and the report of its end.
struct Caught {
    running: SlowPoll,
    finished: SlowPoll,
}

/// Blocks a worker with `block`, which ends by itself, and returns the first report of the running poll.
fn catch_any(block: impl FnOnce() + Send + 'static) -> SlowPoll {
    let (watchdog, reports) = watchdog();
    let watch = watchdog.watch("blocks");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async move { block() }.watched(&watch));
    next(&reports, |slow| slow.phase == Phase::Running).unwrap()
}

fn watchdog() -> (Watchdog, Receiver<SlowPoll>) {
    let (tx, reports) = mpsc::channel();
    let report = move |slow: &SlowPoll| drop(tx.send(slow.clone()));
    let builder = Watchdog::builder().without_tracing().on_slow_poll(report);
    let builder = builder.budget(Duration::from_millis(20));
    (builder.build().unwrap(), reports)
}

/// Blocks a worker with `block` until a report has its whole stack, and then calls `release`.
fn catch(block: impl FnOnce() + Send + 'static, release: impl FnOnce()) -> Caught {
    let (watchdog, reports) = watchdog();
    let watch = watchdog.watch("blocks");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let task = runtime.spawn(async move { block() }.watched(&watch));
    let running = next(&reports, |slow| {
        let stack = slow.stack.as_ref();
        slow.phase == Phase::Running && stack.is_some_and(shotclock::report::Stack::is_complete)
    });
    // Before any assertion, so that the runtime can end.
    release();
    runtime.block_on(task).unwrap();
    let finished = next(&reports, |slow| slow.phase == Phase::Finished);
    Caught {
        running: running.unwrap(),
        finished: finished.unwrap(),
    }
}

/// Returns the first report for which `wanted` is true. A stall has reports at doubling times.
fn next(
    reports: &Receiver<SlowPoll>,
    is_it: impl Fn(&SlowPoll) -> bool,
) -> Result<SlowPoll, String> {
    let mut others = String::new();
    loop {
        match reports.recv_timeout(PATIENCE) {
            Ok(slow) if is_it(&slow) => return Ok(slow),
            Ok(slow) => others += &format!("{slow}\n"),
            Err(error) => return Err(format!("{error}, after these:\n{others}")),
        }
    }
}

impl Caught {
    /// Checks the cause, the system call, the culprit, and the hint.
    fn assert(&self, call: Option<&str>, function: &str, remedy: &str) {
        let Self { running, finished } = self;
        println!("{running}\n{finished}\n");
        assert_eq!(running.id, finished.id);
        for slow in [running, finished] {
            let seen = match &slow.cause {
                Cause::Blocked(syscall) => syscall.name,
                Cause::Computing => None,
                other => panic!("{other}"),
            };
            assert_eq!(seen, call);
            assert!(slow.hint().contains(remedy), "{}", slow.hint());
            let stack = slow.stack.as_ref().unwrap();
            let is_it = |frame: &shotclock::report::Frame| {
                let name = frame.function.as_deref().unwrap_or_default();
                // Some compilers print generics after it.
                name.contains(function)
            };
            assert!(stack.frames_of_poll().iter().any(is_it), "{stack}");
            assert!(stack.to_string().contains(function), "{stack}");
        }
        let split: TimeBreakdown = finished.split.unwrap();
        match call {
            Some(_) => assert!(split.blocked > split.on_cpu, "{split}"),
            None => assert!(split.on_cpu > split.blocked, "{split}"),
        }
    }
}

#[inline(never)]
fn sleeps() {
    std::thread::sleep(Duration::from_secs(2));
    black_box(());
}

#[test]
fn sleep_is_blocked_on_the_clock() {
    let caught = catch(sleeps, || ());
    caught.assert(
        Some("clock_nanosleep"),
        "causes::sleeps",
        "tokio::time::sleep",
    );
    // With its length, or the rest of it after an interruption.
    let cause = caught.running.cause.to_string();
    assert_eq!(cause, "blocked in clock_nanosleep");
    assert!(caught.running.waiting_on.is_some());
}

#[inline(never)]
fn reads(mut from: impl std::io::Read) {
    let _ = from.read(&mut [0; 64]);
    black_box(());
}

#[test]
fn read_of_a_fifo_is_blocked_on_its_path() {
    let path = std::env::temp_dir().join(format!("shotclock-{}.fifo", std::process::id()));
    let made = Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    // Opened for both, so that the read blocks and not the open.
    let open = || std::fs::File::options().read(true).write(true).open(&path);
    let (reader, mut writer) = (open().unwrap(), open().unwrap());
    let release = || std::io::Write::write_all(&mut writer, b"x").unwrap();
    let caught = catch(move || reads(reader), release);
    std::fs::remove_file(&path).unwrap();
    caught.assert(Some("read"), "causes::reads", "tokio::net::unix::pipe");
    assert_eq!(caught.running.waiting_on.as_deref(), path.to_str());
}

fn silent_socket() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

#[test]
fn read_of_a_silent_socket_is_blocked_on_it() {
    let (client, server) = silent_socket();
    let caught = catch(move || reads(client), move || drop(server));
    caught.assert(Some("recvfrom"), "causes::reads", "tokio::net");
    let socket = caught.running.waiting_on.unwrap();
    assert!(socket.starts_with("socket:["), "{socket}");
}

#[inline(never)]
fn locks(mutex: &Mutex<u32>) -> u32 {
    black_box(*mutex.lock().unwrap())
}

#[test]
fn contended_mutex_is_blocked_on_a_futex() {
    let mutex = Arc::new(Mutex::new(7));
    let contender = Arc::clone(&mutex);
    let held = mutex.lock().unwrap();
    let block = move || assert_eq!(locks(&contender), 7);
    let caught = catch(block, move || drop(held));
    caught.assert(Some("futex"), "causes::locks", "tokio::sync::Mutex");
}

#[inline(never)]
fn waits(pair: &(Mutex<bool>, Condvar)) {
    let (mutex, condvar) = pair;
    let is_released = condvar.wait_while(mutex.lock().unwrap(), |released| !*released);
    black_box(is_released.is_ok());
}

#[test]
fn condition_variable_is_blocked_on_a_futex() {
    let pair = Arc::new((Mutex::new(false), Condvar::new()));
    let waiter = Arc::clone(&pair);
    let release = || {
        *pair.0.lock().unwrap() = true;
        pair.1.notify_all();
    };
    let caught = catch(move || waits(&waiter), release);
    caught.assert(Some("futex"), "causes::waits", "tokio::sync::Notify");
}

#[inline(never)]
fn receives(channel: &Receiver<u32>) {
    // With a timeout, the kernel does not restart the call. std repeats it.
    black_box(channel.recv_timeout(PATIENCE).is_ok());
}

#[test]
fn channel_receive_is_blocked_on_a_futex() {
    let (tx, rx) = mpsc::channel();
    let caught = catch(move || receives(&rx), move || tx.send(7).unwrap());
    caught.assert(Some("futex"), "causes::receives", "tokio::sync::mpsc");
}

#[inline(never)]
fn waits_for(mut child: Child) {
    black_box(child.wait().is_ok());
}

#[test]
fn wait_for_a_child_is_blocked_on_a_process() {
    let child = Command::new("sleep").arg("600").spawn().unwrap();
    let id = child.id().to_string();
    let release = || assert!(Command::new("kill").arg(&id).status().unwrap().success());
    let caught = catch(move || waits_for(child), release);
    let name = match &caught.running.cause {
        Cause::Blocked(syscall) => syscall.name,
        other => panic!("{other}"),
    };
    assert!(matches!(name, Some("wait4" | "waitid")), "{name:?}");
    caught.assert(name, "causes::waits_for", "tokio::process");
}

#[inline(never)]
fn polls_nothing(outcome: &mpsc::Sender<rustix::io::Result<usize>>) {
    let limit = rustix::event::Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    };
    outcome
        .send(rustix::event::poll(&mut [], Some(&limit)))
        .unwrap();
}

#[test]
fn call_that_a_signal_would_fail_is_reported_without_a_signal() {
    let (outcome, outcomes) = mpsc::channel();
    let seen = catch_any(move || polls_nothing(&outcome));
    assert_eq!(outcomes.recv_timeout(PATIENCE).unwrap(), Ok(0), "no EINTR");
    let Cause::Blocked(call) = &seen.cause else {
        panic!("{seen}")
    };
    assert!(matches!(call.name, Some("poll" | "ppoll")), "{call}");
    assert!(seen.hint().contains("event loop"), "{}", seen.hint());
}

fn flag() -> (Arc<AtomicBool>, Arc<AtomicBool>) {
    let flag = Arc::new(AtomicBool::new(false));
    (Arc::clone(&flag), flag)
}

#[inline(never)]
fn computes(done: &AtomicBool) {
    let mut sum = 0u64;
    while !done.load(Relaxed) {
        sum = black_box(sum.wrapping_mul(31).wrapping_add(7));
    }
    black_box(sum);
}

#[test]
fn loop_that_computes_is_computing() {
    let (done, set) = flag();
    let caught = catch(move || computes(&done), || set.store(true, Relaxed));
    caught.assert(None, "causes::computes", "yield_every");
}

#[inline(never)]
fn allocates(done: &AtomicBool) {
    let mut size = 1;
    while !done.load(Relaxed) {
        size = size % 100_000 + 77;
        black_box(Vec::<u8>::with_capacity(size));
    }
    black_box(size);
}

#[test]
fn loop_that_allocates_is_computing() {
    let (done, set) = flag();
    let caught = catch(move || allocates(&done), || set.store(true, Relaxed));
    caught.assert(None, "causes::allocates", "offload");
}

#[inline(never)]
fn formats(done: &AtomicBool) {
    let mut number = 0u64;
    while !done.load(Relaxed) {
        number += 1;
        black_box(format!("{number:>20} {:?}", number as f64 / 3.0));
    }
    black_box(number);
}

#[test]
fn loop_inside_format_is_computing() {
    let (done, set) = flag();
    let caught = catch(move || formats(&done), || set.store(true, Relaxed));
    caught.assert(None, "causes::formats", "offload");
}

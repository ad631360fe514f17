//! Calls that a signal would cut short. Under the default settings, they last their whole time and do all of their work. The
//! report of a function that repeats its call has its whole stack.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unsafe_code, reason = "the calls are those of C")]

mod common;

use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;
use std::time::Duration;

use common::stacks;
use shotclock::report::Stack;
use shotclock::{Phase, SlowPoll, Watchdog};

const PATIENCE: Duration = Duration::from_secs(60);

/// More bytes than a pipe or a socket holds.
const MANY: usize = 8 << 20;

/// The reports of a running poll before the test releases it. Each comes from a scan.
const LOOKS: usize = 3;

struct Stuck<T> {
    thread: JoinHandle<T>,
    reports: Receiver<SlowPoll>,
    _watchdog: Watchdog,
}

/// Makes a call in a watched section, in the closure of a thread.
fn stuck<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> Stuck<T> {
    let (tx, reports) = mpsc::channel();
    let report = move |slow: &SlowPoll| drop(tx.send(slow.clone()));
    let builder = Watchdog::builder().without_tracing().on_slow_poll(report);
    let watchdog = builder.reports_per_second(u32::MAX).build().unwrap();
    assert!(stacks(&watchdog).works());
    let watch = watchdog.watch("held");
    let watch = watch.with_budget(Duration::from_millis(5));
    let thread = std::thread::spawn(move || {
        let _entered = watch.enter();
        call()
    });
    Stuck {
        thread,
        reports,
        _watchdog: watchdog,
    }
}

impl<T> Stuck<T> {
    fn running(&self) -> SlowPoll {
        let slow = self.reports.recv_timeout(PATIENCE).unwrap();
        assert_eq!(slow.phase, Phase::Running, "it was not held: {slow}");
        slow
    }

    /// Asserts that there were enough reports.
    fn looked_at(&self) {
        for _ in 0..LOOKS {
            println!("{}", self.running());
        }
    }

    /// Asserts that a report has the whole stack, with this function.
    fn reported_through(&self, function: &str) {
        loop {
            let slow = self.running();
            println!("{slow}");
            if slow.stack.as_ref().is_some_and(Stack::is_complete) {
                let stack = slow.stack.unwrap();
                let has = |frame: &shotclock::report::Frame| {
                    let name = frame.function.as_deref().unwrap_or_default();
                    name.contains(function)
                };
                assert!(stack.frames_of_poll().iter().any(has), "{stack}");
                return;
            }
        }
    }

    fn end(self) -> T {
        self.thread.join().unwrap()
    }
}

#[test]
fn usleep_in_the_closure_of_a_thread_lasts_its_whole_time() {
    // SAFETY: a number.
    let held = stuck(|| unsafe { libc::usleep(400_000) });
    held.looked_at();
    assert_eq!(held.end(), 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn write_of_c_to_a_full_pipe_writes_all() {
    let (mut from, to) = std::io::pipe().unwrap();
    let held = stuck(move || {
        let bytes = vec![7_u8; MANY];
        // SAFETY: the bytes are there.
        unsafe { libc::write(to.as_raw_fd(), bytes.as_ptr().cast(), MANY) }
    });
    held.looked_at();
    std::io::copy(&mut from, &mut std::io::sink()).unwrap();
    assert_eq!(held.end(), MANY as isize);
}

#[test]
fn send_of_c_to_a_full_socket_sends_all() {
    let (mut from, to) = UnixStream::pair().unwrap();
    let held = stuck(move || {
        let bytes = vec![7_u8; MANY];
        // SAFETY: the bytes are there.
        unsafe { libc::send(to.as_raw_fd(), bytes.as_ptr().cast(), MANY, 0) }
    });
    held.looked_at();
    std::io::copy(&mut from, &mut std::io::sink()).unwrap();
    assert_eq!(held.end(), MANY as isize);
}

#[test]
fn recv_of_c_that_waits_for_all_receives_all() {
    let (from, mut to) = UnixStream::pair().unwrap();
    to.write_all(&[7; 10]).unwrap();
    let held = stuck(move || {
        let mut bytes = [0_u8; 20];
        let into = bytes.as_mut_ptr().cast();
        // SAFETY: there is room for them.
        unsafe { libc::recv(from.as_raw_fd(), into, bytes.len(), libc::MSG_WAITALL) }
    });
    held.looked_at();
    to.write_all(&[7; 10]).unwrap();
    assert_eq!(held.end(), 20);
}

#[inline(never)]
fn writes_all(mut to: UnixStream) -> std::io::Result<()> {
    to.write_all(&vec![7; MANY])
}

#[test]
fn write_all_to_a_full_socket_has_a_stack_and_writes_all() {
    let (mut from, to) = UnixStream::pair().unwrap();
    let held = stuck(move || writes_all(to));
    held.reported_through("writes_all");
    let mut received = Vec::new();
    from.read_to_end(&mut received).unwrap();
    assert_eq!(received.len(), MANY);
    held.end().unwrap();
}

#[inline(never)]
fn reads_what_a_child_says(path: &str) -> std::io::Result<std::process::Output> {
    std::process::Command::new("cat").arg(path).output()
}

#[test]
fn command_output_has_a_stack_and_all_output() {
    let path = std::env::temp_dir().join(format!("shotclock-{}-output", std::process::id()));
    let path = path.to_str().unwrap().to_owned();
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let theirs = path.clone();
    let held = stuck(move || reads_what_a_child_says(&theirs));
    held.reported_through("reads_what_a_child_says");
    std::fs::write(&path, "said").unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(held.end().unwrap().stdout, b"said");
}

#[inline(never)]
fn parks() -> std::time::Instant {
    std::thread::park_timeout(PATIENCE);
    std::time::Instant::now()
}

#[test]
fn park_timeout_has_a_stack_and_continues() {
    let held = stuck(parks);
    held.reported_through("parks");
    assert!(!held.thread.is_finished());
    held.thread.thread().unpark();
    held.end();
}

#[cfg(target_env = "gnu")]
#[inline(never)]
fn waits_for_a_condition(seconds: i64) -> libc::c_int {
    // SAFETY: both are initialised, stay where they are, and are used by this thread alone.
    unsafe {
        let mut mutex = libc::PTHREAD_MUTEX_INITIALIZER;
        let mut condition = libc::PTHREAD_COND_INITIALIZER;
        let mut until: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_REALTIME, &mut until);
        until.tv_sec += seconds;
        libc::pthread_mutex_lock(&mut mutex);
        let waited = libc::pthread_cond_timedwait(&mut condition, &mut mutex, &until);
        libc::pthread_mutex_unlock(&mut mutex);
        waited
    }
}

/// The C library repeats this call itself.
#[cfg(target_env = "gnu")]
#[test]
fn pthread_cond_timedwait_lasts_its_whole_time() {
    let held = stuck(|| waits_for_a_condition(1));
    held.looked_at();
    assert_eq!(held.end(), libc::ETIMEDOUT);
}

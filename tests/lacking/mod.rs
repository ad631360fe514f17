//! Helpers for tests of a restricted process.

#![allow(dead_code, reason = "each test takes what it needs")]
#![allow(
    unsafe_code,
    reason = "limits are set by calls of the operating system"
)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shotclock::{Phase, SlowPoll, Watchdog};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn watchdog() -> (Watchdog, Receiver<SlowPoll>) {
    let (tx, reports) = mpsc::channel();
    let report = move |slow: &SlowPoll| drop(tx.send(slow.clone()));
    let builder = Watchdog::builder().without_tracing().on_slow_poll(report);
    (
        builder.reports_per_second(u32::MAX).build().unwrap(),
        reports,
    )
}

/// Makes a poll that blocks, and returns its first and last report.
pub(crate) fn stuck(watchdog: &Watchdog, reports: &Receiver<SlowPoll>) -> (SlowPoll, SlowPoll) {
    let watch = watchdog.watch("stuck");
    let poll = watch.enter();
    std::thread::sleep(Duration::from_millis(200));
    let running = reports.recv_timeout(PATIENCE).unwrap();
    assert_eq!(running.phase, Phase::Running);
    drop(poll);
    loop {
        let slow = reports.recv_timeout(PATIENCE).unwrap();
        if slow.phase == Phase::Finished {
            assert_eq!(slow.id, running.id);
            return (running, slow);
        }
    }
}

/// Lowers a resource limit.
pub(crate) fn set_limit(resource: Resource, limit: u64) {
    let maximum = getrlimit(resource).maximum;
    let current = Some(maximum.map_or(limit, |maximum| limit.min(maximum)));
    setrlimit(resource, Rlimit { current, maximum }).unwrap();
}

/// Makes a system call fail with `EPERM` from now on, in every thread.
pub(crate) fn forbid(call: libc::c_long) {
    filter(call, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
}

/// Makes a system call end the process from now on, in every thread.
pub(crate) fn make_deadly(call: libc::c_long) {
    filter(call, libc::SECCOMP_RET_KILL_PROCESS);
}

fn filter(call: libc::c_long, answer: u32) {
    const LOAD_NUMBER: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let mut steps = [
        step(LOAD_NUMBER, 0, 0, 0),
        step(JUMP_IF_EQUAL, call as u32, 0, 1),
        step(RETURN, answer, 0, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog {
        len: 4,
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: the filter program outlives the call.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let flags = libc::SECCOMP_FILTER_FLAG_TSYNC;
        let mode = libc::SECCOMP_SET_MODE_FILTER;
        assert_eq!(
            libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program),
            0
        );
    }
}

//! Processes without threads or system calls, and forked ones. Each scenario has its own process.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(
    unsafe_code,
    reason = "limits are set by calls of the operating system"
)]

mod common;
mod lacking;

use std::os::unix::process::ExitStatusExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use common::{child_of, compute, in_a_child, scenario, stacks};
use lacking::{PATIENCE, forbid, set_limit, stuck, watchdog};
use rustix::process::Resource;
use shotclock::{Capability, Cause, Escalation, SlowPoll, Watch, WatchExt as _, Watchdog};

/// Runs the scenario of a child process. It is no test by itself.
#[test]
fn child() {
    match scenario().as_deref() {
        Some("no threads") => no_threads(),
        Some("no threads later") => no_threads_later(),
        Some("no tgkill") => no_tgkill(),
        Some("no process_vm_readv") => no_process_vm_readv(),
        Some("abort without tgkill") => abort_without_tgkill(),
        Some("abort with stderr taken") => abort_with_stderr_taken(),
        Some("fork") => fork(),
        _ => {}
    }
}

/// Forbids new threads. The limit belongs to the user, and does not apply to root.
fn take_threads() {
    // SAFETY: numbers only. glibc changes the user of every thread.
    unsafe {
        if libc::getuid() == 0 {
            assert_eq!(libc::setgid(65_534), 0);
            assert_eq!(libc::setuid(65_534), 0);
        }
    }
    set_limit(Resource::Nproc, 1);
    let refused = std::thread::Builder::new().spawn(|| ());
    assert_eq!(refused.err().unwrap().raw_os_error(), Some(libc::EAGAIN));
}

fn no_threads() {
    take_threads();
    for _ in 0..3 {
        let error = Watchdog::builder().build().unwrap_err();
        println!("{error}");
        assert!(error.is_thread_refused(), "{error}");
        assert!(
            error.to_string().contains("shotclock-"),
            "it says which: {error}"
        );
    }
    assert!(shotclock::Watchdog::global().is_err());
    let guard = shotclock::guard();
    assert!(!guard.is_active());
    // The hard limit is unchanged.
    set_limit(Resource::Nproc, u64::MAX);
    let (watchdog, reports) = watchdog();
    let (running, _) = stuck(&watchdog, &reports);
    println!("{running}");
}

/// Running parts continue. Parts that need a thread return an error, and the service continues.
fn no_threads_later() {
    let (watchdog, reports) = watchdog();
    assert!(stacks(&watchdog).works());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    take_threads();
    stuck(&watchdog, &reports);
    // The guard works without probes.
    let guard = watchdog.guard("main", runtime.handle());
    assert!(guard.is_active());
    let watch = watchdog.watch("served");
    runtime.block_on(async {
        // The pool of the runtime has no thread yet.
        let offloaded = shotclock::offload(|| 7).await;
        println!("{offloaded:?}");
        assert!(offloaded.is_err());
        // The slice ticker does not run, so the pace uses its count.
        let mut pace = shotclock::yield_after(Duration::from_millis(1));
        for _ in 0..1_000 {
            pace.tick().await;
        }
        async {}.watched(&watch).await;
    });
    assert_eq!(watch.stats().polls, 1);
    let served = shotclock::prometheus::install("127.0.0.1:0".parse().unwrap());
    assert!(served.unwrap_err().is_thread_refused());
    assert!(Watchdog::builder().build().unwrap_err().is_thread_refused());
    stuck(&watchdog, &reports);
}

fn no_tgkill() {
    forbid(libc::SYS_tgkill);
    let (watchdog, reports) = watchdog();
    let missing = Capability::Unavailable("the signal could not be sent".into());
    assert_eq!(stacks(&watchdog), missing);
    let (running, _) = stuck(&watchdog, &reports);
    assert!(matches!(running.cause, Cause::Blocked(_)), "{running}");
}

fn no_process_vm_readv() {
    forbid(libc::SYS_process_vm_readv);
    let (watchdog, reports) = watchdog();
    // The handler copies the thread's own stack itself.
    assert!(stacks(&watchdog).works());
    let (running, _) = stuck(&watchdog, &reports);
    assert!(matches!(running.cause, Cause::Blocked(_)), "{running}");
    // A thread that computes is signalled, and has its whole stack.
    let watch = watchdog.watch("computes");
    let mut is_complete = false;
    while !is_complete {
        let poll = watch.enter();
        compute(Duration::from_millis(100));
        drop(poll);
        let is_whole =
            |slow: &SlowPoll| slow.stack.as_ref().is_some_and(|stack| stack.is_complete());
        // On a busy machine a thread may answer too late.
        is_complete = reports.try_iter().any(|slow| is_whole(&slow));
    }
}

fn stuck_for_ever() -> ! {
    let builder = Watchdog::builder().without_tracing();
    let builder = builder.escalate(Duration::from_millis(50), Escalation::Abort);
    let watchdog = builder.build().unwrap();
    let watch = watchdog.watch("stuck for ever");
    let _poll = watch.enter();
    std::thread::sleep(PATIENCE);
    std::process::exit(0);
}

fn abort_without_tgkill() {
    forbid(libc::SYS_tgkill);
    stuck_for_ever();
}

fn abort_with_stderr_taken() {
    let _taken = std::io::stderr().lock();
    stuck_for_ever();
}

/// A forked child has one thread. Its polls are timed and counted only. It waits for no lock that another thread held, which
/// is nearly always the case here.
fn fork() {
    let (watchdog, reports) = watchdog();
    let watch = watchdog
        .watch("forked")
        .with_budget(Duration::from_nanos(1));
    for _ in 0..50 {
        // The sentinel scans this all the time.
        let _poll = watch.enter();
        compute(Duration::from_millis(2));
        // SAFETY: the test is about the actions of the child, which ends itself.
        match unsafe { libc::fork() } {
            0 => {
                // SAFETY: it ends the child if it should hang.
                unsafe { libc::alarm(60) };
                let is_well = catch_unwind(AssertUnwindSafe(|| forked(&watch)));
                // SAFETY: without destructors, as after a fork.
                unsafe { libc::_exit(if is_well.is_ok() { 0 } else { 1 }) };
            }
            child => {
                assert!(child > 0);
                let mut status = 0;
                // SAFETY: the status is there to be written.
                let ended = unsafe { libc::waitpid(child, &mut status, 0) };
                assert_eq!((ended, status), (child, 0), "of the child");
            }
        }
    }
    assert!(watchdog.flush(PATIENCE));
    while reports.try_recv().is_ok() {}
    // The parent is unaffected.
    stuck(&watchdog, &reports);
}

fn forked(watch: &Watch) {
    let before = watch.stats();
    assert_eq!(before.in_flight, 1, "the one around the fork");
    for _ in 0..100 {
        let poll = watch.enter();
        std::hint::black_box((0..100).fold(7, |a, b| a ^ b));
        drop(poll);
    }
    let after = watch.stats();
    assert_eq!(after.polls, before.polls + 100);
    assert_eq!(after.slow_polls, before.slow_polls + 100);
    let error = Watchdog::builder().build().unwrap_err();
    assert!(
        error.is_thread_refused() && error.to_string().contains("child of a fork"),
        "{error}"
    );
}

#[test]
fn build_without_threads_is_an_error() {
    in_a_child("no threads");
}

#[test]
fn lane_without_new_threads_continues() {
    in_a_child("no threads later");
}

#[test]
fn tgkill_denied_leaves_out_stacks_only() {
    in_a_child("no tgkill");
}

#[test]
fn process_vm_readv_denied_keeps_stacks_of_computing_threads() {
    in_a_child("no process_vm_readv");
}

#[test]
fn tgkill_denied_still_aborts() {
    let status = child_of("abort without tgkill").status;
    // It ends itself by another way.
    assert!(status.signal().is_some(), "{status}");
}

#[test]
fn locked_stderr_does_not_prevent_the_abort() {
    let status = child_of("abort with stderr taken").status;
    assert_eq!(status.signal(), Some(libc::SIGABRT), "{status}");
}

#[test]
fn forked_child_counts_and_does_not_hang() {
    in_a_child("fork");
}

//! Threads that block the signal, or run on a switched stack. Their polls are still reported and counted.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(
    unsafe_code,
    reason = "stacks are switched and signals masked by calls of C"
)]

mod common;

use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use common::{compute, stacks};
use shotclock::report::Stack;
use shotclock::{Cause, Phase, SlowPoll, Watchdog};

const MS: Duration = Duration::from_millis(1);

fn watchdog() -> (Watchdog, Receiver<SlowPoll>) {
    let (tx, reports) = mpsc::channel();
    let report = move |slow: &SlowPoll| drop(tx.send(slow.clone()));
    let builder = Watchdog::builder().without_tracing().on_slow_poll(report);
    let builder = builder.reports_per_second(u32::MAX);
    (builder.build().unwrap(), reports)
}

/// Computes until its report, and for a while after.
fn computes_until_told(watchdog: &Watchdog, reports: &Receiver<SlowPoll>) -> Vec<SlowPoll> {
    let watch = watchdog.watch("computes").with_budget(5 * MS);
    let mut told = Vec::new();
    {
        let _poll = watch.enter();
        while told.len() < 3 {
            compute(MS);
            told.extend(
                reports
                    .try_iter()
                    .filter(|slow| slow.phase == Phase::Running),
            );
        }
    }
    told
}

fn set_mask(how: libc::c_int) {
    // SAFETY: the set is written before it is read.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGURG);
        assert_eq!(libc::pthread_sigmask(how, &set, std::ptr::null_mut()), 0);
    }
}

/// Returns whether the signal is pending for this thread, so a capture was requested.
fn was_asked(thread: libc::pid_t) -> bool {
    let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/status")).unwrap();
    let pending = status.lines().find_map(|line| line.strip_prefix("SigPnd:"));
    let pending = u64::from_str_radix(pending.unwrap().trim(), 16).unwrap();
    pending >> (libc::SIGURG - 1) & 1 == 1
}

/// State: no scan waits for them, and their reports say why they have no stack. The others have theirs.
#[test]
fn threads_that_block_the_signal_get_none() {
    const BLOCKED: usize = 12;
    let (watchdog, reports) = watchdog();
    assert!(stacks(&watchdog).works());
    let (numbers, threads) = mpsc::channel();
    let waits = |name: String, is_blocked: bool| {
        let watch = watchdog.watch(name).with_budget(5 * MS);
        let numbers = numbers.clone();
        let (mut from, to) = std::io::pipe().unwrap();
        let thread = std::thread::spawn(move || {
            if is_blocked {
                set_mask(libc::SIG_BLOCK);
                // SAFETY: no arguments.
                numbers.send(unsafe { libc::gettid() }).unwrap();
            }
            let _poll = watch.enter();
            // The kernel restarts this call after a signal.
            std::io::Read::read(&mut from, &mut [0]).unwrap();
        });
        (thread, to)
    };
    let mut waiting: Vec<_> = (0..BLOCKED)
        .map(|number| waits(format!("blocked {number}"), true))
        .collect();
    waiting.push(waits("open".to_owned(), false));
    let threads: Vec<_> = threads.iter().take(BLOCKED).collect();

    let mut told = std::collections::BTreeMap::<String, usize>::new();
    let mut open_is_whole = false;
    let is_enough = |told: &std::collections::BTreeMap<String, usize>| {
        told.len() == BLOCKED + 1 && told.values().all(|times| *times >= 3)
    };
    while !is_enough(&told) || !open_is_whole {
        let slow = reports.recv_timeout(Duration::from_secs(60)).unwrap();
        let watch = slow.watch.to_string();
        if watch == "open" {
            open_is_whole |= is_whole(&slow);
        } else {
            let why = "the thread has the capture signal blocked";
            assert_eq!(slow.no_stack, Some(why), "{slow}");
            assert!(slow.to_string().contains(why), "{slow}");
            assert!(!is_whole(&slow), "{slow}");
        }
        *told.entry(watch).or_default() += 1;
    }
    let asked = threads.iter().filter(|thread| was_asked(**thread)).count();
    assert_eq!(asked, 0, "of {BLOCKED} threads that block the signal");
    for (thread, to) in waiting {
        drop(to);
        thread.join().unwrap();
    }
}

/// State: its report has a cause and no stack. When it unblocks the signal, nothing happens.
#[test]
fn thread_that_blocks_the_signal_is_reported_without_a_stack() {
    let (watchdog, reports) = watchdog();
    assert!(stacks(&watchdog).works());
    std::thread::spawn(move || {
        set_mask(libc::SIG_BLOCK);
        for slow in computes_until_told(&watchdog, &reports) {
            assert_eq!(slow.cause, Cause::Computing, "{slow}");
            assert!(slow.stack.is_none(), "{slow}");
        }
        set_mask(libc::SIG_UNBLOCK);
        // A late answer is dropped, and the next stack is that of the requested thread.
        while !computes_until_told(&watchdog, &reports)
            .iter()
            .any(is_whole)
        {}
    })
    .join()
    .unwrap();
}

fn is_whole(slow: &SlowPoll) -> bool {
    slow.stack.as_ref().is_some_and(Stack::is_complete)
}

fn names_the_loop(slow: &SlowPoll) -> bool {
    let stack = slow.stack.as_ref();
    stack.is_some_and(|stack| stack.to_string().contains("computes_until_told"))
}

/// The function on another stack, which gets only an address.
struct Elsewhere {
    watchdog: Watchdog,
    reports: Receiver<SlowPoll>,
    told: Vec<SlowPoll>,
}

thread_local! {
    static ELSEWHERE: std::cell::Cell<*mut Elsewhere> = const { std::cell::Cell::new(std::ptr::null_mut()) };
}

extern "C" fn elsewhere() {
    // SAFETY: the caller of the switch stored it there, and waits.
    let it = unsafe { &mut *ELSEWHERE.get() };
    // On a busy machine a thread may answer too late.
    while !it.told.iter().any(names_the_loop) {
        it.told = computes_until_told(&it.watchdog, &it.reports);
    }
}

extern "C" fn elsewhere_by_a_signal(_: libc::c_int) {
    elsewhere();
}

fn on_another_stack(switch: impl FnOnce()) {
    let (watchdog, reports) = watchdog();
    assert!(stacks(&watchdog).works());
    let mut it = Elsewhere {
        watchdog,
        reports,
        told: Vec::new(),
    };
    ELSEWHERE.set(&mut it);
    switch();
    let slow = it.told.iter().find(|slow| names_the_loop(slow)).unwrap();
    println!("{slow}");
    assert_eq!(slow.cause, Cause::Computing);
}

/// State: the stack is captured as far as it is mapped.
#[test]
fn poll_on_a_coroutine_stack_is_captured() {
    let mut stack = vec![0u8; 512 * 1024];
    on_another_stack(|| {
        // SAFETY: the contexts are made by their functions, and the stack outlives the switch.
        unsafe {
            let mut here: libc::ucontext_t = std::mem::zeroed();
            let mut there: libc::ucontext_t = std::mem::zeroed();
            assert_eq!(libc::getcontext(&mut there), 0);
            there.uc_stack.ss_sp = stack.as_mut_ptr().cast();
            there.uc_stack.ss_size = stack.len();
            there.uc_link = &mut here;
            libc::makecontext(&mut there, elsewhere, 0);
            assert_eq!(libc::swapcontext(&mut here, &there), 0);
        }
    });
}

/// State: as above. A second signal interrupts the handler, for its stack.
#[test]
fn poll_on_a_signal_stack_is_captured() {
    let mut stack = vec![0u8; 512 * 1024];
    on_another_stack(|| {
        // SAFETY: the stack outlives the signal, which is raised here. The handler disturbs no interrupted code.
        unsafe {
            let mut before: libc::stack_t = std::mem::zeroed();
            let ours = libc::stack_t {
                ss_sp: stack.as_mut_ptr().cast(),
                ss_flags: 0,
                ss_size: stack.len(),
            };
            assert_eq!(libc::sigaltstack(&ours, &mut before), 0);
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = elsewhere_by_a_signal as *const () as usize;
            action.sa_flags = libc::SA_ONSTACK;
            assert_eq!(
                libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()),
                0
            );
            assert_eq!(libc::raise(libc::SIGUSR1), 0);
            assert_eq!(libc::sigaltstack(&before, std::ptr::null_mut()), 0);
        }
    });
}

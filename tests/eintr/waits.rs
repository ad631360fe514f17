//! Calls that wait for other threads and processes, for events, and for time.

use std::cell::Cell;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use libc::{c_int, timespec, timeval};

use super::calls::*;

pub(crate) fn waitpid() -> Rig {
    // SAFETY: no status is requested.
    timed(|| unsafe { libc::waitpid(child_that_sleeps(), null_mut(), 0).into() })
}

pub(crate) fn waitid() -> Rig {
    // SAFETY: zeros are room for how it ended.
    timed(|| unsafe {
        let mut ended: libc::siginfo_t = std::mem::zeroed();
        let child = child_that_sleeps();
        let mut outcome = libc::waitid(libc::P_PID, child as libc::id_t, &mut ended, libc::WEXITED);
        let first = (outcome, errno());
        while outcome != 0 && errno() == libc::EINTR {
            outcome = libc::waitid(libc::P_PID, child as libc::id_t, &mut ended, libc::WEXITED);
        }
        set_errno(first.1);
        first.0.into()
    })
}

pub(crate) fn futex() -> Rig {
    let word = word();
    let make = move |operation: c_int| {
        // SAFETY: the word lives for ever.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, 0, 0, 0, 0) }
    };
    let release = move || make(libc::FUTEX_WAKE);
    rig(move || make(libc::FUTEX_WAIT), release)
}

/// The C library has no function for it.
pub(crate) fn futex_timed() -> Rig {
    let word = word();
    timed(move || {
        let (word, limit): (_, *const timespec) = (word.as_ptr(), &LIMIT);
        // SAFETY: the word lives for ever, and the limit is there.
        unsafe { bare::<202>([word as u64, libc::FUTEX_WAIT as u64, 0, limit as u64, 0]) }
    })
}

pub(crate) fn sem_wait() -> Rig {
    let semaphore = posix_semaphore();
    // SAFETY: it was initialised, and lives for ever.
    let call = move || unsafe { libc::sem_wait(sem_of(semaphore)).into() };
    // SAFETY: as above.
    rig(call, move || unsafe { libc::sem_post(sem_of(semaphore)) })
}

pub(crate) fn sem_timed() -> Rig {
    let semaphore = posix_semaphore();
    // SAFETY: it was initialised, and lives for ever.
    timed(move || unsafe {
        libc::sem_timedwait(sem_of(semaphore), &soon(libc::CLOCK_REALTIME)).into()
    })
}

pub(crate) fn msgrcv() -> Rig {
    let queue = queue();
    let id = queue.0;
    let call = move || {
        let _keep = &queue;
        receive(id, 0)
    };
    rig(call, move || send(id, libc::IPC_NOWAIT))
}

pub(crate) fn msgsnd() -> Rig {
    let queue = queue();
    let id = queue.0;
    while send(id, libc::IPC_NOWAIT) == 0 {}
    let call = move || {
        let _keep = &queue;
        send(id, 0)
    };
    rig(call, move || receive(id, libc::IPC_NOWAIT))
}

pub(crate) fn semop() -> Rig {
    let semaphore = semaphore();
    let id = semaphore.0;
    let call = move || {
        let _keep = &semaphore;
        change(id, -1, None)
    };
    rig(call, move || change(id, 1, None))
}

pub(crate) fn semtimedop() -> Rig {
    let semaphore = semaphore();
    timed(move || {
        let keep = &semaphore;
        change(keep.0, -1, Some(&LIMIT))
    })
}

pub(crate) fn poll() -> Rig {
    // SAFETY: of no descriptors.
    timed(|| unsafe { libc::poll(null_mut(), 0, 1).into() })
}

pub(crate) fn ppoll() -> Rig {
    // SAFETY: of no descriptors.
    timed(|| unsafe { libc::ppoll(null_mut(), 0, &LIMIT, null()).into() })
}

pub(crate) fn select() -> Rig {
    timed(|| {
        let mut limit = timeval {
            tv_sec: 0,
            tv_usec: 300,
        };
        // SAFETY: of no descriptors.
        unsafe { libc::select(0, null_mut(), null_mut(), null_mut(), &mut limit).into() }
    })
}

pub(crate) fn pselect() -> Rig {
    // SAFETY: of no descriptors.
    timed(|| unsafe { libc::pselect(0, null_mut(), null_mut(), null_mut(), &LIMIT, null()).into() })
}

fn epoll_of_nothing() -> c_int {
    // SAFETY: a number.
    sure(unsafe { libc::epoll_create1(0) })
}

pub(crate) fn epoll_wait() -> Rig {
    let epoll = epoll_of_nothing();
    timed(move || {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: there is room for one.
        unsafe { libc::epoll_wait(epoll, &mut event, 1, 1).into() }
    })
}

pub(crate) fn epoll_pwait() -> Rig {
    let epoll = epoll_of_nothing();
    timed(move || {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: there is room for one.
        unsafe { libc::epoll_pwait(epoll, &mut event, 1, 1, null()).into() }
    })
}

pub(crate) fn nanosleep() -> Rig {
    // SAFETY: the time is there.
    timed(|| unsafe { libc::nanosleep(&LIMIT, null_mut()).into() })
}

/// It returns the reason, and not -1.
fn reason(outcome: c_int) -> Outcome {
    set_errno(outcome);
    if outcome == 0 { 0 } else { -1 }
}

pub(crate) fn clock_nanosleep() -> Rig {
    // SAFETY: the time is there.
    timed(|| unsafe {
        reason(libc::clock_nanosleep(
            libc::CLOCK_MONOTONIC,
            0,
            &LIMIT,
            null_mut(),
        ))
    })
}

pub(crate) fn clock_nanosleep_until() -> Rig {
    // SAFETY: the time is there.
    timed(|| unsafe {
        let end = soon(libc::CLOCK_MONOTONIC);
        let until = libc::TIMER_ABSTIME;
        reason(libc::clock_nanosleep(
            libc::CLOCK_MONOTONIC,
            until,
            &end,
            null_mut(),
        ))
    })
}

fn set_of(signal: Option<c_int>) -> libc::sigset_t {
    // SAFETY: it is written before it is read.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        if let Some(signal) = signal {
            libc::sigaddset(&mut set, signal);
        }
        set
    }
}

pub(crate) fn sigtimedwait() -> Rig {
    let set = set_of(Some(libc::SIGWINCH));
    // SAFETY: set and limit are there.
    timed(move || unsafe { libc::sigtimedwait(&set, null_mut(), &LIMIT).into() })
}

thread_local! {
    static CAME: Cell<u64> = const { Cell::new(0) };
}

extern "C" fn came(_: c_int) {
    CAME.set(CAME.get() + 1);
}

/// Calls that return only after a signal, always with `EINTR`. Without a signal of the test, it is because of a capture.
fn until_a_signal(wait: fn()) -> Rig {
    // SAFETY: the handler counts in a thread-local without a destructor, and no more.
    unsafe { libc::signal(libc::SIGUSR2, came as *const () as usize) };
    let waiting: &'static AtomicU64 = Box::leak(Box::default());
    let call = move || {
        // SAFETY: the thread itself.
        waiting.store(unsafe { libc::pthread_self() }, SeqCst);
        let before = CAME.get();
        wait();
        if CAME.get() != before { 0 } else { -1 }
    };
    // SAFETY: the thread is in `call`, and ends after the one that calls this.
    rig(call, move || unsafe {
        libc::pthread_kill(waiting.load(SeqCst), libc::SIGUSR2)
    })
}

pub(crate) fn pause() -> Rig {
    // SAFETY: no arguments.
    until_a_signal(|| unsafe {
        libc::pause();
    })
}

pub(crate) fn sigsuspend() -> Rig {
    // SAFETY: the set is there.
    until_a_signal(|| unsafe {
        libc::sigsuspend(&set_of(None));
    })
}

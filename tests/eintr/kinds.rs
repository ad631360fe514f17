//! The calls by name.

use std::ptr::null_mut;

use libc::c_int;

use super::calls::*;
use super::more::*;
use super::waits::*;

/// A kind of call, by name.
pub(crate) type Kind = (&'static str, fn() -> Rig);

/// Calls that block until an event, and calls with a timeout.
pub(crate) const KINDS: &[Kind] = &[
    ("read of a pipe", read_pipe),
    ("readv", readv),
    ("read of an eventfd", read_eventfd),
    ("read of a timerfd", read_timerfd),
    ("write to a full pipe", write_pipe),
    ("recv", recv),
    ("recv with a time-out", recv_timed),
    ("recvmsg", recvmsg),
    ("send to a full socket", send_full),
    ("send with a time-out", send_timed),
    ("accept", accept),
    ("accept with a time-out", accept_timed),
    ("connect", connects),
    ("open of a FIFO", open_fifo),
    ("flock", flock),
    ("fcntl(OFD_SETLKW)", ofd_lock),
    ("waitpid", waitpid),
    ("waitid", waitid),
    ("futex", futex),
    ("futex with a time limit", futex_timed),
    ("sem_wait", sem_wait),
    ("sem_timedwait", sem_timed),
    ("msgrcv", msgrcv),
    ("msgsnd", msgsnd),
    ("semop", semop),
    ("semtimedop", semtimedop),
    ("poll", poll),
    ("ppoll", ppoll),
    ("select", select),
    ("pselect", pselect),
    ("epoll_wait", epoll_wait),
    ("epoll_pwait", epoll_pwait),
    ("nanosleep", nanosleep),
    ("clock_nanosleep", clock_nanosleep),
    ("clock_nanosleep until", clock_nanosleep_until),
    ("sigtimedwait", sigtimedwait),
    ("pause", pause),
    ("sigsuspend", sigsuspend),
    ("recvmmsg", recvmmsg),
    ("splice", splice),
    ("read of an inotify", read_inotify),
    ("mq_receive", mq_receive),
    ("mq_timedreceive", mq_timedreceive),
    ("mq_send", mq_send),
    ("io_getevents", io_getevents),
    ("epoll_pwait2", epoll_pwait2),
    ("wait4", wait4),
    ("usleep", usleep),
];

fn read_pipe() -> Rig {
    let [from, to] = pipe();
    rig(move || get::<1>(from), move || put(to, &[1]))
}

fn readv() -> Rig {
    let [from, to] = pipe();
    let call = move || {
        let mut byte = 0u8;
        let into = libc::iovec {
            iov_base: (&raw mut byte).cast(),
            iov_len: 1,
        };
        // SAFETY: there is room for one.
        unsafe { libc::readv(from, &into, 1) as Outcome }
    };
    rig(call, move || put(to, &[1]))
}

fn read_eventfd() -> Rig {
    // SAFETY: numbers only.
    let event = sure(unsafe { libc::eventfd(0, 0) });
    let release = move || put(event, &1u64.to_ne_bytes());
    rig(move || get::<8>(event), release)
}

fn read_timerfd() -> Rig {
    // SAFETY: numbers, and times that are there.
    unsafe {
        let timer = sure(libc::timerfd_create(libc::CLOCK_MONOTONIC, 0));
        let every = libc::itimerspec {
            it_interval: LIMIT,
            it_value: LIMIT,
        };
        sure(libc::timerfd_settime(timer, 0, &every, null_mut()));
        timed(move || get::<8>(timer))
    }
}

fn write_pipe() -> Rig {
    let [from, to] = pipe();
    fill(to);
    rig(move || put(to, &[1; 4096]), move || get::<4096>(from))
}

fn receives(from: c_int) -> Outcome {
    let mut byte = 0u8;
    // SAFETY: there is room for one.
    unsafe { libc::recv(from, (&raw mut byte).cast(), 1, 0) as Outcome }
}

fn recv() -> Rig {
    let [from, to] = socket_pair();
    rig(move || receives(from), move || put(to, &[1]))
}

fn recv_timed() -> Rig {
    let [from, to] = socket_pair();
    limit_of(from, libc::SO_RCVTIMEO);
    timed(move || {
        let _open = to;
        receives(from)
    })
}

fn recvmsg() -> Rig {
    let [from, to] = socket_pair();
    let call = move || {
        let mut byte = 0u8;
        let mut into = libc::iovec {
            iov_base: (&raw mut byte).cast(),
            iov_len: 1,
        };
        // SAFETY: zeros are a message; there is room for one byte.
        unsafe {
            let mut message: libc::msghdr = std::mem::zeroed();
            message.msg_iov = &mut into;
            message.msg_iovlen = 1;
            libc::recvmsg(from, &mut message, 0) as Outcome
        }
    };
    rig(call, move || put(to, &[1]))
}

fn sends(to: c_int) -> Outcome {
    let bytes = [1u8; 4096];
    // SAFETY: the bytes are there.
    unsafe { libc::send(to, bytes.as_ptr().cast(), bytes.len(), 0) as Outcome }
}

fn send_full() -> Rig {
    let [from, to] = socket_pair();
    fill(to);
    rig(move || sends(to), move || get::<8192>(from))
}

fn send_timed() -> Rig {
    let [from, to] = socket_pair();
    fill(to);
    limit_of(to, libc::SO_SNDTIMEO);
    timed(move || {
        let _open = from;
        sends(to)
    })
}

fn accepts(listener: c_int) -> Outcome {
    // SAFETY: no address is requested.
    closed(unsafe { libc::accept(listener, null_mut(), null_mut()) })
}

fn accept() -> Rig {
    let (listener, address) = listener(64);
    let release = move || close(connect(&address, libc::SOCK_NONBLOCK).0);
    rig(move || accepts(listener), release)
}

fn accept_timed() -> Rig {
    let (listener, _) = listener(64);
    limit_of(listener, libc::SO_RCVTIMEO);
    timed(move || accepts(listener))
}

fn connects() -> Rig {
    let (listener, address) = listener(0);
    set_blocking(listener, false);
    // The first calls find room, and the others wait.
    while connect(&address, libc::SOCK_NONBLOCK).1 == 0 {}
    let call = move || {
        let (socket, outcome) = connect(&address, 0);
        let reason = errno();
        close(socket);
        set_errno(reason);
        outcome.into()
    };
    rig(call, move || accepts(listener))
}

fn open_fifo() -> Rig {
    let path = path("fifo");
    // SAFETY: the path ends with a zero.
    sure(unsafe { libc::mkfifo(path.as_ptr(), 0o600) });
    let removed = RemovedFile(path.clone());
    let open = |path: &std::ffi::CStr, how| {
        // SAFETY: the path ends with a zero.
        closed(unsafe { libc::open(path.as_ptr(), how) })
    };
    let call = move || open(&removed.0, libc::O_RDONLY);
    // Fails if there is no reader yet.
    let release = move || open(&path, libc::O_WRONLY | libc::O_NONBLOCK);
    rig(call, release)
}

fn flock() -> Rig {
    let (ours, theirs) = file("flock");
    // SAFETY: numbers only.
    let lock = |file, how| unsafe { libc::flock(file, how) };
    sure(lock(theirs, libc::LOCK_EX));
    let call = move || {
        let outcome = lock(ours, libc::LOCK_EX);
        let reason = errno();
        lock(ours, libc::LOCK_UN);
        lock(theirs, libc::LOCK_EX | libc::LOCK_NB);
        set_errno(reason);
        outcome.into()
    };
    rig(call, move || lock(theirs, libc::LOCK_UN))
}

fn ofd_lock() -> Rig {
    let (ours, theirs) = file("ofd");
    let lock = |file, how, kind: c_int| {
        // SAFETY: zeros are a lock of the whole file.
        unsafe {
            let mut lock: libc::flock = std::mem::zeroed();
            lock.l_type = kind as i16;
            libc::fcntl(file, how, &raw mut lock)
        }
    };
    sure(lock(theirs, libc::F_OFD_SETLK, libc::F_WRLCK));
    let call = move || {
        let outcome = lock(ours, libc::F_OFD_SETLKW, libc::F_WRLCK);
        let reason = errno();
        lock(ours, libc::F_OFD_SETLK, libc::F_UNLCK);
        lock(theirs, libc::F_OFD_SETLK, libc::F_WRLCK);
        set_errno(reason);
        outcome.into()
    };
    let release = move || lock(theirs, libc::F_OFD_SETLK, libc::F_UNLCK);
    rig(call, release)
}

//! Less usual calls.

use std::ffi::CString;
use std::mem::zeroed;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use libc::{c_int, timespec};

use super::calls::*;

pub(crate) fn recvmmsg() -> Rig {
    let [from, to] = socket_pair();
    let call = move || {
        let mut byte = 0u8;
        let mut into = libc::iovec {
            iov_base: (&raw mut byte).cast(),
            iov_len: 1,
        };
        // SAFETY: zeros are a message; there is room for one byte of one message.
        unsafe {
            let mut message: libc::mmsghdr = zeroed();
            message.msg_hdr.msg_iov = &mut into;
            message.msg_hdr.msg_iovlen = 1;
            libc::recvmmsg(from, &mut message, 1, 0, null_mut()).into()
        }
    };
    rig(call, move || put(to, &[1]))
}

pub(crate) fn splice() -> Rig {
    let ([from, to], [drain, into]) = (pipe(), pipe());
    set_blocking(drain, false);
    // SAFETY: numbers only; no offsets.
    let call = move || unsafe { libc::splice(from, null_mut(), into, null_mut(), 1, 0) as Outcome };
    rig(call, move || {
        put(to, &[1]);
        get::<8>(drain)
    })
}

pub(crate) fn read_inotify() -> Rig {
    let path = path("inotify");
    // SAFETY: the path ends with a zero.
    let notices = unsafe {
        let file = sure(libc::open(
            path.as_ptr(),
            libc::O_RDWR | libc::O_CREAT,
            0o600,
        ));
        close(file);
        let notices = sure(libc::inotify_init1(0));
        sure(libc::inotify_add_watch(
            notices,
            path.as_ptr(),
            libc::IN_OPEN,
        ));
        notices
    };
    let removed = RemovedFile(path.clone());
    let call = move || {
        let _keep = &removed;
        get::<256>(notices)
    };
    rig(call, move || {
        // SAFETY: the path ends with a zero.
        closed(unsafe { libc::open(path.as_ptr(), libc::O_RDONLY) })
    })
}

/// Opens a POSIX queue with room for one message twice: blocking and not blocking.
fn queues() -> [libc::mqd_t; 2] {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, SeqCst);
    let name = format!("/shotclock-{}-{number}", std::process::id());
    let name = CString::new(name).expect("no zeros");
    // SAFETY: the name ends with a zero, and zeros are attributes.
    unsafe {
        let mut attributes: libc::mq_attr = zeroed();
        attributes.mq_maxmsg = 1;
        attributes.mq_msgsize = 8;
        let how = libc::O_RDWR | libc::O_CREAT;
        let mut open = |flags| {
            sure(libc::mq_open(
                name.as_ptr(),
                how | flags,
                0o600,
                &raw mut attributes,
            ))
        };
        let both = [open(0), open(libc::O_NONBLOCK)];
        libc::mq_unlink(name.as_ptr());
        both
    }
}

fn mq_get(queue: libc::mqd_t) -> Outcome {
    let mut text = [0u8; 8];
    // SAFETY: there is room for the longest message.
    unsafe { libc::mq_receive(queue, text.as_mut_ptr().cast(), 8, null_mut()) as Outcome }
}

fn mq_put(queue: libc::mqd_t) -> Outcome {
    // SAFETY: the text is there.
    unsafe { libc::mq_send(queue, [0u8; 8].as_ptr().cast(), 8, 0).into() }
}

pub(crate) fn mq_receive() -> Rig {
    let [waits, asks] = queues();
    rig(move || mq_get(waits), move || mq_put(asks))
}

pub(crate) fn mq_send() -> Rig {
    let [waits, asks] = queues();
    mq_put(asks);
    rig(move || mq_put(waits), move || mq_get(asks))
}

pub(crate) fn mq_timedreceive() -> Rig {
    let [waits, _] = queues();
    timed(move || {
        let mut text = [0u8; 8];
        let limit = soon(libc::CLOCK_REALTIME);
        // SAFETY: there is room for the longest message.
        unsafe {
            libc::mq_timedreceive(waits, text.as_mut_ptr().cast(), 8, null_mut(), &limit) as Outcome
        }
    })
}

/// Makes the call as libaio does, because the C library has no function.
pub(crate) fn io_getevents() -> Rig {
    let mut context = 0u64;
    // SAFETY: the context is there to be written.
    let made = unsafe { libc::syscall(libc::SYS_io_setup, 1, &raw mut context) };
    sure(made as c_int);
    timed(move || {
        let (mut event, mut limit) = ([0u64; 4], LIMIT);
        let (event, limit) = (&raw mut event, &raw mut limit);
        // SAFETY: there is room for one event.
        unsafe { bare::<208>([context, 1, 1, event as u64, limit as u64]) }
    })
}

pub(crate) fn epoll_pwait2() -> Rig {
    // SAFETY: a number.
    let epoll = sure(unsafe { libc::epoll_create1(0) });
    timed(move || {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        let (event, limit): (_, *const timespec) = (&raw mut event, &LIMIT);
        // SAFETY: there is room for one event; no signals are given.
        unsafe { bare::<441>([epoll as u64, event as u64, 1, limit as u64, 0]) }
    })
}

pub(crate) fn wait4() -> Rig {
    // SAFETY: no status and no usage is requested.
    timed(|| unsafe { libc::wait4(child_that_sleeps(), null_mut(), 0, null_mut()).into() })
}

pub(crate) fn usleep() -> Rig {
    // SAFETY: a number.
    timed(|| unsafe { libc::usleep(300).into() })
}

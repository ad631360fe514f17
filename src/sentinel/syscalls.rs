//! What a system call is called, what it waits for, and what a signal would do to it.

use std::sync::Arc;
use std::time::Duration;

use syscalls::Sysno;

use crate::cause::{Syscall, Target};
use crate::proc::{Waits, descriptor};
use crate::sys::{self, FileType};

/// What a signal with a restarting handler does to a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Interrupted {
    /// The kernel makes it again, or it cannot be interrupted.
    Restarts,
    /// It returns `EINTR`; Rust's standard library, and `parking_lot`, make it again.
    IsRetriedByStd,
    /// It returns `EINTR`, or may.
    Fails,
}

/// What kind of call it is, by what it waits for.
enum Sort {
    /// A duration behind the pointer that is the argument of this number.
    Sleep(usize),
    Futex,
    /// The descriptor that is the first argument; a socket may have a time-out.
    Descriptor(Timeout),
    /// A path or the state of a file.
    File,
    Child,
    Events,
    Other,
}

/// Which time-out of a socket bounds the call.
#[derive(Clone, Copy)]
enum Timeout {
    Receive,
    Send,
}

fn sort(call: Sysno) -> Sort {
    match call {
        Sysno::nanosleep => Sort::Sleep(0),
        Sysno::clock_nanosleep => Sort::Sleep(2),
        Sysno::futex => Sort::Futex,
        Sysno::read
        | Sysno::readv
        | Sysno::pread64
        | Sysno::preadv
        | Sysno::recvfrom
        | Sysno::recvmsg
        | Sysno::accept
        | Sysno::accept4
        | Sysno::flock
        | Sysno::ioctl
        | Sysno::fcntl
        | Sysno::splice
        | Sysno::fsync
        | Sysno::fdatasync => Sort::Descriptor(Timeout::Receive),
        Sysno::write
        | Sysno::writev
        | Sysno::pwrite64
        | Sysno::pwritev
        | Sysno::sendto
        | Sysno::sendmsg
        | Sysno::sendfile
        | Sysno::connect => Sort::Descriptor(Timeout::Send),
        Sysno::openat
        | Sysno::openat2
        | Sysno::statx
        | Sysno::getdents64
        | Sysno::unlinkat
        | Sysno::renameat2
        | Sysno::mkdirat
        | Sysno::copy_file_range
        | Sysno::ftruncate
        | Sysno::fallocate => Sort::File,
        Sysno::wait4 | Sysno::waitid => Sort::Child,
        Sysno::ppoll
        | Sysno::pselect6
        | Sysno::epoll_pwait
        | Sysno::epoll_pwait2
        | Sysno::io_uring_enter => Sort::Events,
        other => sort_of_old(other),
    }
}

/// Calls that newer architectures do without.
#[cfg(target_arch = "x86_64")]
fn sort_of_old(call: Sysno) -> Sort {
    match call {
        Sysno::poll | Sysno::select | Sysno::epoll_wait => Sort::Events,
        Sysno::open
        | Sysno::creat
        | Sysno::stat
        | Sysno::newfstatat
        | Sysno::lstat
        | Sysno::unlink
        | Sysno::rename
        | Sysno::mkdir => Sort::File,
        _ => Sort::Other,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn sort_of_old(_: Sysno) -> Sort {
    Sort::Other
}

fn number(waits: &Waits) -> Option<Sysno> {
    Sysno::new(usize::try_from(waits.number).ok()?)
}

/// The call in words.
pub(super) fn describe(waits: &Waits) -> Syscall {
    let call = number(waits);
    let target = match call.map(sort) {
        Some(Sort::Sleep(_)) => Target::Clock,
        Some(Sort::Futex) => Target::Word,
        Some(Sort::Descriptor(_)) => target_of(waits.arguments[0]),
        Some(Sort::File) => Target::File,
        Some(Sort::Child) => Target::Process,
        Some(Sort::Events) => Target::Events,
        Some(Sort::Other) | None => Target::Unknown,
    };
    Syscall {
        name: call.map(|call| call.name()),
        target,
    }
}

/// What the call waits for: a duration, or what is behind the file descriptor.
pub(super) fn waits_for(waits: &Waits) -> Option<Arc<str>> {
    match number(waits).map(sort)? {
        Sort::Sleep(argument) => duration(waits, argument),
        Sort::Descriptor(_) => descriptor(waits.arguments[0]).map(Arc::from),
        _ => None,
    }
}

fn target_of(descriptor: u64) -> Target {
    match sys::file_type(descriptor) {
        Some(FileType::Socket) => Target::Socket,
        Some(FileType::Pipe) => Target::Pipe,
        Some(FileType::File) => Target::File,
        Some(FileType::Device) => Target::Device,
        None => Target::Unknown,
    }
}

/// What a relative sleep was asked for. Of one until a moment of a clock it is not said.
fn duration(waits: &Waits, argument: usize) -> Option<Arc<str>> {
    const ABSOLUTE: u64 = 1;
    let is_relative = argument == 0 || waits.arguments[1] & ABSOLUTE == 0;
    let mut spec = [0; 16];
    let address = usize::try_from(waits.arguments[argument]).ok()?;
    if !is_relative || sys::read_memory(address, &mut spec) < spec.len() {
        return None;
    }
    let (seconds, nanos) = spec.split_at(8);
    let seconds = u64::from_ne_bytes(seconds.try_into().ok()?);
    let nanos = u64::from_ne_bytes(nanos.try_into().ok()?);
    let duration = Duration::new(
        seconds,
        u32::try_from(nanos).ok().filter(|n| *n < 1_000_000_000)?,
    );
    Some(format!("{duration:?}").into())
}

/// What a signal would do to the call.
pub(super) fn interrupted(waits: &Waits) -> Interrupted {
    let restarts = match number(waits).map(sort) {
        Some(Sort::Sleep(_)) => return Interrupted::IsRetriedByStd,
        // Without a time limit it restarts.
        Some(Sort::Futex) if waits.arguments[3] != 0 => return Interrupted::IsRetriedByStd,
        Some(Sort::Futex | Sort::Child) => true,
        Some(Sort::Descriptor(timeout)) => restarts_on(waits, timeout),
        Some(Sort::File) => number(waits) == Some(Sysno::openat),
        Some(Sort::Events | Sort::Other) | None => false,
    };
    if restarts {
        Interrupted::Restarts
    } else {
        Interrupted::Fails
    }
}

fn restarts_on(waits: &Waits, timeout: Timeout) -> bool {
    match sys::file_type(waits.arguments[0]) {
        Some(FileType::Socket) => !has_timeout(waits.arguments[0], timeout),
        // A file of the network, or of a program in user space, may be interrupted.
        Some(FileType::File) => false,
        Some(FileType::Pipe | FileType::Device) => is_read_or_write(waits),
        // An eventfd, a timer, an inotify.
        None => number(waits) == Some(Sysno::read),
    }
}

fn has_timeout(descriptor: u64, timeout: Timeout) -> bool {
    let is_receive = matches!(timeout, Timeout::Receive);
    // What cannot be asked has one, to be on the safe side.
    sys::socket_timeout(descriptor, is_receive).unwrap_or(true)
}

fn is_read_or_write(waits: &Waits) -> bool {
    matches!(
        number(waits),
        Some(Sysno::read | Sysno::readv | Sysno::write | Sysno::writev)
    )
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;

    fn waits(call: Sysno, arguments: [u64; 6]) -> Waits {
        Waits {
            number: call.id().into(),
            arguments,
            sp: 0,
            pc: 0,
        }
    }

    #[test]
    fn what_has_a_time_limit_does_not_restart() {
        let untimed = waits(Sysno::futex, [0; 6]);
        let timed = waits(Sysno::futex, [0, 0, 0, 1, 0, 0]);
        assert_eq!(interrupted(&untimed), Interrupted::Restarts);
        assert_eq!(interrupted(&timed), Interrupted::IsRetriedByStd);
        let sleep = waits(Sysno::nanosleep, [0; 6]);
        assert_eq!(interrupted(&sleep), Interrupted::IsRetriedByStd);
        for call in [Sysno::ppoll, Sysno::epoll_pwait, Sysno::sync] {
            assert_eq!(interrupted(&waits(call, [0; 6])), Interrupted::Fails);
        }
    }

    #[test]
    fn a_socket_restarts_unless_it_has_a_time_out() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let descriptor = socket.as_raw_fd().cast_unsigned().into();
        let receive = waits(Sysno::recvfrom, [descriptor, 0, 0, 0, 0, 0]);
        assert_eq!(interrupted(&receive), Interrupted::Restarts);
        socket
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        assert_eq!(interrupted(&receive), Interrupted::Fails);
        let call = describe(&receive);
        assert_eq!(call.target, Target::Socket);
        assert_eq!(call.to_string(), "recvfrom");
        let socket = waits_for(&receive).unwrap();
        assert!(socket.starts_with("socket:["), "{socket}");
    }

    #[test]
    fn a_sleep_says_for_how_long() {
        let spec = [3u64, 500_000_000];
        let address = spec.as_ptr().addr() as u64;
        let sleep = waits(Sysno::clock_nanosleep, [1, 0, address, 0, 0, 0]);
        assert_eq!(describe(&sleep).to_string(), "clock_nanosleep");
        assert_eq!(waits_for(&sleep).as_deref(), Some("3.5s"));
        let until = waits(Sysno::clock_nanosleep, [1, 1, address, 0, 0, 0]);
        assert_eq!(waits_for(&until), None);
        let nowhere = waits(Sysno::nanosleep, [8, 0, 0, 0, 0, 0]);
        assert_eq!(waits_for(&nowhere), None);
    }

    #[test]
    fn a_number_that_is_none_has_no_name() {
        let call = describe(&Waits {
            number: i64::MAX,
            ..waits(Sysno::read, [0; 6])
        });
        assert_eq!(call, Syscall::default());
    }
}

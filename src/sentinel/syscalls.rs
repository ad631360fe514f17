//! What a system call is called, what it waits for, and what a signal would do to it.

use std::sync::Arc;
use std::time::Duration;

use syscalls::Sysno;

use super::restarting_callers::Call;
use crate::procfs::{Waits, descriptor};
use crate::report::{Resource, Syscall};
use crate::sys::{self, FileType};

/// What a signal with a restarting handler does to a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Interrupted {
    /// The kernel makes it again, or it cannot be interrupted.
    Restarts,
    /// It returns `EINTR`, or that a part is done. Some functions make it again then.
    IsCutShort(Call),
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
        | Sysno::fchmod
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
    let resource = match call.map(sort) {
        Some(Sort::Sleep(_)) => Resource::Clock,
        Some(Sort::Futex) => Resource::Futex,
        Some(Sort::Descriptor(_)) => resource_of(waits.arguments[0]),
        Some(Sort::File) => Resource::File,
        Some(Sort::Child) => Resource::Process,
        Some(Sort::Events) => Resource::Events,
        Some(Sort::Other) | None => Resource::Unknown,
    };
    Syscall {
        name: call.map(|call| call.name()),
        resource,
    }
}

/// What the call waits for: a duration, or what is behind the file descriptor.
pub(super) fn waiting_on(waits: &Waits) -> Option<Arc<str>> {
    match number(waits).map(sort)? {
        Sort::Sleep(argument) => duration(waits, argument),
        Sort::Descriptor(_) => descriptor(waits.arguments[0]).map(Arc::from),
        _ => None,
    }
}

fn resource_of(descriptor: u64) -> Resource {
    match sys::file_type(descriptor) {
        Some(FileType::Socket) => Resource::Socket,
        Some(FileType::Pipe) => Resource::Pipe,
        Some(FileType::File) => Resource::File,
        Some(FileType::Device) => Resource::Device,
        None => Resource::Unknown,
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
    let Some(call) = number(waits) else {
        return Interrupted::Fails;
    };
    match (sort(call), call) {
        (Sort::Sleep(_), _) => Interrupted::IsCutShort(Call::Sleep),
        // Without a time limit it restarts.
        (Sort::Futex, _) if waits.arguments[3] != 0 => Interrupted::IsCutShort(Call::Futex),
        (Sort::Futex | Sort::Child, _) => Interrupted::Restarts,
        (Sort::Descriptor(timeout), _) => on_descriptor(waits, call, timeout),
        (Sort::File, Sysno::openat) => Interrupted::Restarts,
        (Sort::File, Sysno::ftruncate) => Interrupted::IsCutShort(Call::Truncate),
        (Sort::File, Sysno::fchmod) => Interrupted::IsCutShort(Call::ChangeMode),
        (Sort::Events, call) if is_poll(call) => Interrupted::IsCutShort(Call::Poll),
        (Sort::File | Sort::Events | Sort::Other, _) => Interrupted::Fails,
    }
}

#[cfg(target_arch = "x86_64")]
fn is_poll(call: Sysno) -> bool {
    matches!(call, Sysno::poll | Sysno::ppoll)
}

#[cfg(not(target_arch = "x86_64"))]
fn is_poll(call: Sysno) -> bool {
    call == Sysno::ppoll
}

fn on_descriptor(waits: &Waits, call: Sysno, timeout: Timeout) -> Interrupted {
    let is_restarted = restarts_on(waits, call, timeout);
    match call {
        Sysno::fsync | Sysno::fdatasync => Interrupted::IsCutShort(Call::Sync),
        Sysno::accept | Sysno::accept4 if !is_restarted => Interrupted::IsCutShort(Call::Accept),
        _ if !is_restarted || waits_for_all(waits, call) => Interrupted::Fails,
        // Once a part is written, a signal has the call return how much.
        _ if writes(call) && !is_all_or_nothing(waits, call) => {
            Interrupted::IsCutShort(Call::Write)
        }
        _ => Interrupted::Restarts,
    }
}

/// Whether the kernel makes the call again, as long as nothing is done yet.
fn restarts_on(waits: &Waits, call: Sysno, timeout: Timeout) -> bool {
    match sys::file_type(waits.arguments[0]) {
        Some(FileType::Socket) => !has_timeout(waits.arguments[0], timeout),
        // A file of the network, or of a program in user space, may be interrupted.
        Some(FileType::File) => false,
        Some(FileType::Pipe | FileType::Device) => {
            matches!(call, Sysno::read | Sysno::readv) || writes(call)
        }
        // An eventfd, a timer, an inotify.
        None => call == Sysno::read,
    }
}

fn has_timeout(descriptor: u64, timeout: Timeout) -> bool {
    let is_receive = matches!(timeout, Timeout::Receive);
    // What cannot be asked has one, to be on the safe side.
    sys::socket_timeout(descriptor, is_receive).unwrap_or(true)
}

fn writes(call: Sysno) -> bool {
    let is_plain = matches!(call, Sysno::write | Sysno::writev);
    is_plain || matches!(call, Sysno::sendto | Sysno::sendmsg)
}

/// Whether the call waits until nothing is left to write before it has written anything.
fn is_all_or_nothing(waits: &Waits, call: Sysno) -> bool {
    // POSIX: a pipe takes up to this number of bytes at once, or waits.
    const PIPE_BUF: u64 = 4096;
    match sys::file_type(waits.arguments[0]) {
        Some(FileType::Socket) => sys::is_stream(waits.arguments[0]) == Some(false),
        Some(FileType::Pipe) => call == Sysno::write && waits.arguments[2] <= PIPE_BUF,
        _ => false,
    }
}

/// Whether it waits for more, though it has received a part.
fn waits_for_all(waits: &Waits, call: Sysno) -> bool {
    const MSG_WAITALL: u64 = 0x100;
    let flags = match call {
        Sysno::recvfrom => waits.arguments[3],
        Sysno::recvmsg => waits.arguments[2],
        _ => 0,
    };
    flags & MSG_WAITALL != 0
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
    fn call_with_a_timeout_does_not_restart() {
        let untimed = waits(Sysno::futex, [0; 6]);
        let timed = waits(Sysno::futex, [0, 0, 0, 1, 0, 0]);
        assert_eq!(interrupted(&untimed), Interrupted::Restarts);
        assert_eq!(interrupted(&timed), Interrupted::IsCutShort(Call::Futex));
        for (call, kind) in [
            (Sysno::nanosleep, Call::Sleep),
            (Sysno::clock_nanosleep, Call::Sleep),
            (Sysno::poll, Call::Poll),
            (Sysno::ppoll, Call::Poll),
            (Sysno::fsync, Call::Sync),
            (Sysno::fdatasync, Call::Sync),
            (Sysno::ftruncate, Call::Truncate),
            (Sysno::fchmod, Call::ChangeMode),
        ] {
            let cut_short = Interrupted::IsCutShort(kind);
            assert_eq!(interrupted(&waits(call, [0; 6])), cut_short, "{call}");
        }
        for call in [Sysno::epoll_pwait, Sysno::select, Sysno::sync] {
            assert_eq!(interrupted(&waits(call, [0; 6])), Interrupted::Fails);
        }
    }

    #[test]
    fn socket_without_a_timeout_restarts() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let descriptor = socket.as_raw_fd().cast_unsigned().into();
        let receive = waits(Sysno::recvfrom, [descriptor, 0, 0, 0, 0, 0]);
        assert_eq!(interrupted(&receive), Interrupted::Restarts);
        let whole = waits(Sysno::recvfrom, [descriptor, 0, 0, 0x100, 0, 0]);
        assert_eq!(interrupted(&whole), Interrupted::Fails);
        let send = waits(Sysno::sendto, [descriptor, 0, 1 << 20, 0, 0, 0]);
        assert_eq!(interrupted(&send), Interrupted::Restarts, "a datagram");
        socket
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        assert_eq!(interrupted(&receive), Interrupted::Fails);
        let call = describe(&receive);
        assert_eq!(call.resource, Resource::Socket);
        assert_eq!(call.to_string(), "recvfrom");
        let socket = waiting_on(&receive).unwrap();
        assert!(socket.starts_with("socket:["), "{socket}");
    }

    #[test]
    fn partial_write_is_cut_short() {
        let cut_short = Interrupted::IsCutShort(Call::Write);
        let (_from, to) = std::io::pipe().unwrap();
        let pipe = to.as_raw_fd().cast_unsigned().into();
        let (stream, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let stream = stream.as_raw_fd().cast_unsigned().into();
        for (call, descriptor, len, expected) in [
            (Sysno::write, pipe, 4096, Interrupted::Restarts),
            (Sysno::write, pipe, 4097, cut_short),
            (Sysno::writev, pipe, 1, cut_short),
            (Sysno::write, stream, 1, cut_short),
            (Sysno::sendto, stream, 1, cut_short),
            (Sysno::sendmsg, stream, 1, cut_short),
        ] {
            let write = waits(call, [descriptor, 0, len, 0, 0, 0]);
            assert_eq!(interrupted(&write), expected, "{call} of {len}");
        }
    }

    #[test]
    fn accept_with_a_timeout_is_cut_short() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let accept = waits(
            Sysno::accept4,
            [listener.as_raw_fd().cast_unsigned().into(), 0, 0, 0, 0, 0],
        );
        assert_eq!(interrupted(&accept), Interrupted::Restarts);
        // What cannot be asked is taken to have one.
        let nothing = waits(Sysno::accept4, [u64::MAX, 0, 0, 0, 0, 0]);
        let cut_short = Interrupted::IsCutShort(Call::Accept);
        assert_eq!(interrupted(&nothing), cut_short);
    }

    #[test]
    fn sleep_has_its_duration() {
        let spec = [3u64, 500_000_000];
        let address = spec.as_ptr().addr() as u64;
        let sleep = waits(Sysno::clock_nanosleep, [1, 0, address, 0, 0, 0]);
        assert_eq!(describe(&sleep).to_string(), "clock_nanosleep");
        assert_eq!(waiting_on(&sleep).as_deref(), Some("3.5s"));
        let until = waits(Sysno::clock_nanosleep, [1, 1, address, 0, 0, 0]);
        assert_eq!(waiting_on(&until), None);
        let nowhere = waits(Sysno::nanosleep, [8, 0, 0, 0, 0, 0]);
        assert_eq!(waiting_on(&nowhere), None);
    }

    #[test]
    fn unknown_number_has_no_name() {
        let call = describe(&Waits {
            number: i64::MAX,
            ..waits(Sysno::read, [0; 6])
        });
        assert_eq!(call, Syscall::default());
    }
}

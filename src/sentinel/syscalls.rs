//! Describes a system call: its name, the resource that it waits for, and the effect of a signal.

use std::sync::Arc;
use std::time::Duration;

use libc::c_long;

use super::restarting_callers::Call;
use super::syscall_names::name_of;
use crate::procfs::{Waits, descriptor};
use crate::report::{Resource, Syscall};
use crate::sys::{self, FileType};

/// The effect of a signal with a restarting handler on a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Interrupted {
    /// The kernel restarts it, or cannot interrupt it.
    Restarts,
    /// It returns `EINTR`, or a partial result. Some functions then repeat it.
    IsCutShort(Call),
    /// It may return `EINTR`.
    Fails,
}

/// The kind of a call, by the resource that it waits for.
enum Sort {
    /// A duration. The argument with this index points to it.
    Sleep(usize),
    Futex,
    /// The descriptor in the first argument. A socket may have a timeout.
    Descriptor(Timeout),
    /// A path or the state of a file.
    File,
    Child,
    Events,
    Other,
}

/// The timeout of a socket that bounds the call.
#[derive(Clone, Copy)]
enum Timeout {
    Receive,
    Send,
}

fn sort(call: c_long) -> Sort {
    match call {
        libc::SYS_nanosleep => Sort::Sleep(0),
        libc::SYS_clock_nanosleep => Sort::Sleep(2),
        libc::SYS_futex => Sort::Futex,
        libc::SYS_read
        | libc::SYS_readv
        | libc::SYS_pread64
        | libc::SYS_preadv
        | libc::SYS_recvfrom
        | libc::SYS_recvmsg
        | libc::SYS_accept
        | libc::SYS_accept4
        | libc::SYS_flock
        | libc::SYS_ioctl
        | libc::SYS_fcntl
        | libc::SYS_splice
        | libc::SYS_fsync
        | libc::SYS_fdatasync => Sort::Descriptor(Timeout::Receive),
        libc::SYS_write
        | libc::SYS_writev
        | libc::SYS_pwrite64
        | libc::SYS_pwritev
        | libc::SYS_sendto
        | libc::SYS_sendmsg
        | libc::SYS_sendfile
        | libc::SYS_connect => Sort::Descriptor(Timeout::Send),
        libc::SYS_openat
        | libc::SYS_openat2
        | libc::SYS_statx
        | libc::SYS_getdents64
        | libc::SYS_unlinkat
        | libc::SYS_renameat2
        | libc::SYS_mkdirat
        | libc::SYS_copy_file_range
        | libc::SYS_ftruncate
        | libc::SYS_fchmod
        | libc::SYS_fallocate => Sort::File,
        libc::SYS_wait4 | libc::SYS_waitid => Sort::Child,
        libc::SYS_ppoll
        | libc::SYS_pselect6
        | libc::SYS_epoll_pwait
        | libc::SYS_epoll_pwait2
        | libc::SYS_io_uring_enter => Sort::Events,
        other => sort_of_old(other),
    }
}

/// Returns the kind of a call that newer architectures do not have.
#[cfg(target_arch = "x86_64")]
fn sort_of_old(call: c_long) -> Sort {
    match call {
        libc::SYS_poll | libc::SYS_select | libc::SYS_epoll_wait => Sort::Events,
        libc::SYS_open
        | libc::SYS_creat
        | libc::SYS_stat
        | libc::SYS_newfstatat
        | libc::SYS_lstat
        | libc::SYS_unlink
        | libc::SYS_rename
        | libc::SYS_mkdir => Sort::File,
        _ => Sort::Other,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn sort_of_old(_: c_long) -> Sort {
    Sort::Other
}

/// Describes a call for reports.
pub(crate) fn describe(waits: &Waits) -> Syscall {
    let resource = match sort(waits.number) {
        Sort::Sleep(_) => Resource::Clock,
        Sort::Futex => Resource::Futex,
        Sort::Descriptor(_) => resource_of(waits.arguments[0]),
        Sort::File => Resource::File,
        Sort::Child => Resource::Process,
        Sort::Events => Resource::Events,
        Sort::Other => Resource::Unknown,
    };
    Syscall {
        name: name_of(waits.number),
        resource,
    }
}

/// Returns what the call waits on: a duration, or the target of the file descriptor.
pub(crate) fn waiting_on(waits: &Waits) -> Option<Arc<str>> {
    match sort(waits.number) {
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

/// Returns the length of a relative sleep. `None` for a sleep until a point in time.
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

/// Returns the effect of a signal on the call.
pub(crate) fn interrupted(waits: &Waits) -> Interrupted {
    let call = waits.number;
    match (sort(call), call) {
        (Sort::Sleep(_), _) => Interrupted::IsCutShort(Call::Sleep),
        // Without a timeout it restarts.
        (Sort::Futex, _) if waits.arguments[3] != 0 => Interrupted::IsCutShort(Call::Futex),
        (Sort::Futex | Sort::Child, _) => Interrupted::Restarts,
        (Sort::Descriptor(timeout), _) => on_descriptor(waits, call, timeout),
        (Sort::File, libc::SYS_openat) => Interrupted::Restarts,
        (Sort::File, libc::SYS_ftruncate) => Interrupted::IsCutShort(Call::Truncate),
        (Sort::File, libc::SYS_fchmod) => Interrupted::IsCutShort(Call::ChangeMode),
        (Sort::Events, call) if is_poll(call) => Interrupted::IsCutShort(Call::Poll),
        (Sort::File | Sort::Events | Sort::Other, _) => Interrupted::Fails,
    }
}

#[cfg(target_arch = "x86_64")]
fn is_poll(call: c_long) -> bool {
    matches!(call, libc::SYS_poll | libc::SYS_ppoll)
}

#[cfg(not(target_arch = "x86_64"))]
fn is_poll(call: c_long) -> bool {
    call == libc::SYS_ppoll
}

fn on_descriptor(waits: &Waits, call: c_long, timeout: Timeout) -> Interrupted {
    let is_restarted = restarts_on(waits, call, timeout);
    match call {
        libc::SYS_fsync | libc::SYS_fdatasync => Interrupted::IsCutShort(Call::Sync),
        libc::SYS_accept | libc::SYS_accept4 if !is_restarted => {
            Interrupted::IsCutShort(Call::Accept)
        }
        _ if !is_restarted || waits_for_all(waits, call) => Interrupted::Fails,
        // Once a part is written, a signal makes the call return its length.
        _ if writes(call) && !is_all_or_nothing(waits, call) => {
            Interrupted::IsCutShort(Call::Write)
        }
        _ => Interrupted::Restarts,
    }
}

/// Returns whether the kernel restarts the call, if it has done nothing yet.
fn restarts_on(waits: &Waits, call: c_long, timeout: Timeout) -> bool {
    match sys::file_type(waits.arguments[0]) {
        Some(FileType::Socket) => !has_timeout(waits.arguments[0], timeout),
        // A network file system, or one in user space, may return early.
        Some(FileType::File) => false,
        Some(FileType::Pipe | FileType::Device) => {
            matches!(call, libc::SYS_read | libc::SYS_readv) || writes(call)
        }
        // An eventfd, a timerfd or an inotify descriptor.
        None => call == libc::SYS_read,
    }
}

fn has_timeout(descriptor: u64, timeout: Timeout) -> bool {
    let is_receive = matches!(timeout, Timeout::Receive);
    // An unknown socket counts as one with a timeout, which is the safe side.
    sys::socket_timeout(descriptor, is_receive).unwrap_or(true)
}

fn writes(call: c_long) -> bool {
    let is_plain = matches!(call, libc::SYS_write | libc::SYS_writev);
    is_plain || matches!(call, libc::SYS_sendto | libc::SYS_sendmsg)
}

/// Returns whether the call writes everything or nothing.
fn is_all_or_nothing(waits: &Waits, call: c_long) -> bool {
    // POSIX: a pipe accepts up to this number of bytes at once, or waits.
    const PIPE_BUF: u64 = 4096;
    match sys::file_type(waits.arguments[0]) {
        Some(FileType::Socket) => sys::is_stream(waits.arguments[0]) == Some(false),
        Some(FileType::Pipe) => call == libc::SYS_write && waits.arguments[2] <= PIPE_BUF,
        _ => false,
    }
}

/// Returns whether the call waits for more after it has received a part.
fn waits_for_all(waits: &Waits, call: c_long) -> bool {
    const MSG_WAITALL: u64 = 0x100;
    let flags = match call {
        libc::SYS_recvfrom => waits.arguments[3],
        libc::SYS_recvmsg => waits.arguments[2],
        _ => 0,
    };
    flags & MSG_WAITALL != 0
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;

    fn waits(call: c_long, arguments: [u64; 6]) -> Waits {
        Waits {
            number: call,
            arguments,
            sp: 0,
            pc: 0,
        }
    }

    #[test]
    fn call_with_a_timeout_does_not_restart() {
        let untimed = waits(libc::SYS_futex, [0; 6]);
        let timed = waits(libc::SYS_futex, [0, 0, 0, 1, 0, 0]);
        assert_eq!(interrupted(&untimed), Interrupted::Restarts);
        assert_eq!(interrupted(&timed), Interrupted::IsCutShort(Call::Futex));
        for (call, kind) in [
            (libc::SYS_nanosleep, Call::Sleep),
            (libc::SYS_clock_nanosleep, Call::Sleep),
            (libc::SYS_poll, Call::Poll),
            (libc::SYS_ppoll, Call::Poll),
            (libc::SYS_fsync, Call::Sync),
            (libc::SYS_fdatasync, Call::Sync),
            (libc::SYS_ftruncate, Call::Truncate),
            (libc::SYS_fchmod, Call::ChangeMode),
        ] {
            let cut_short = Interrupted::IsCutShort(kind);
            assert_eq!(interrupted(&waits(call, [0; 6])), cut_short, "{call}");
        }
        for call in [libc::SYS_epoll_pwait, libc::SYS_select, libc::SYS_sync] {
            assert_eq!(interrupted(&waits(call, [0; 6])), Interrupted::Fails);
        }
    }

    #[test]
    fn socket_without_a_timeout_restarts() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let descriptor = socket.as_raw_fd().cast_unsigned().into();
        let receive = waits(libc::SYS_recvfrom, [descriptor, 0, 0, 0, 0, 0]);
        assert_eq!(interrupted(&receive), Interrupted::Restarts);
        let whole = waits(libc::SYS_recvfrom, [descriptor, 0, 0, 0x100, 0, 0]);
        assert_eq!(interrupted(&whole), Interrupted::Fails);
        let send = waits(libc::SYS_sendto, [descriptor, 0, 1 << 20, 0, 0, 0]);
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
            (libc::SYS_write, pipe, 4096, Interrupted::Restarts),
            (libc::SYS_write, pipe, 4097, cut_short),
            (libc::SYS_writev, pipe, 1, cut_short),
            (libc::SYS_write, stream, 1, cut_short),
            (libc::SYS_sendto, stream, 1, cut_short),
            (libc::SYS_sendmsg, stream, 1, cut_short),
        ] {
            let write = waits(call, [descriptor, 0, len, 0, 0, 0]);
            assert_eq!(interrupted(&write), expected, "{call} of {len}");
        }
    }

    #[test]
    fn accept_with_a_timeout_is_cut_short() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let accept = waits(
            libc::SYS_accept4,
            [listener.as_raw_fd().cast_unsigned().into(), 0, 0, 0, 0, 0],
        );
        assert_eq!(interrupted(&accept), Interrupted::Restarts);
        // An unknown socket counts as one with a timeout.
        let nothing = waits(libc::SYS_accept4, [u64::MAX, 0, 0, 0, 0, 0]);
        let cut_short = Interrupted::IsCutShort(Call::Accept);
        assert_eq!(interrupted(&nothing), cut_short);
    }

    #[test]
    fn sleep_has_its_duration() {
        let spec = [3u64, 500_000_000];
        let address = spec.as_ptr().addr() as u64;
        let sleep = waits(libc::SYS_clock_nanosleep, [1, 0, address, 0, 0, 0]);
        assert_eq!(describe(&sleep).to_string(), "clock_nanosleep");
        assert_eq!(waiting_on(&sleep).as_deref(), Some("3.5s"));
        let until = waits(libc::SYS_clock_nanosleep, [1, 1, address, 0, 0, 0]);
        assert_eq!(waiting_on(&until), None);
        let nowhere = waits(libc::SYS_nanosleep, [8, 0, 0, 0, 0, 0]);
        assert_eq!(waiting_on(&nowhere), None);
    }

    #[test]
    fn unknown_number_has_no_name() {
        let call = describe(&Waits {
            number: i64::MAX,
            ..waits(libc::SYS_read, [0; 6])
        });
        assert_eq!(call, Syscall::default());
    }
}

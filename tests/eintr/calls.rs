//! All kinds of blocking system calls. Each blocks for a fraction of a millisecond.
//!
//! The calls go through the C library, so `EINTR` is visible. Rust's standard library repeats most calls and would hide it.

use std::ffi::CString;
use std::mem::{size_of, zeroed};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::SeqCst};

use libc::{c_int, timespec, timeval};

unsafe extern "C" {
    fn semtimedop(
        id: c_int,
        changes: *mut libc::sembuf,
        count: usize,
        limit: *const timespec,
    ) -> c_int;
}

/// The result of a call, as in C: -1 with a reason in `errno` if it failed.
pub(crate) type Outcome = i64;

/// A call, and a function that lets it return if it has no timeout.
pub(crate) struct Rig {
    pub(crate) call: Box<dyn FnMut() -> Outcome + Send>,
    /// Another thread calls it repeatedly during the call.
    pub(crate) release: Box<dyn FnMut() + Send>,
}

/// The timeout of a call, or a millisecond if it counts those.
pub(crate) const LIMIT: timespec = timespec {
    tv_sec: 0,
    tv_nsec: 300_000,
};

pub(crate) fn rig<T>(
    call: impl FnMut() -> Outcome + Send + 'static,
    mut release: impl FnMut() -> T + Send + 'static,
) -> Rig {
    Rig {
        call: Box::new(call),
        release: Box::new(move || drop(release())),
    }
}

pub(crate) fn timed(call: impl FnMut() -> Outcome + Send + 'static) -> Rig {
    rig(call, || ())
}

/// Panics with the reason if the call failed.
pub(crate) fn sure(outcome: c_int) -> c_int {
    assert!(outcome >= 0, "{}", std::io::Error::last_os_error());
    outcome
}

pub(crate) fn pipe() -> [c_int; 2] {
    let mut ends = [0; 2];
    // SAFETY: there is room for two.
    sure(unsafe { libc::pipe(ends.as_mut_ptr()) });
    ends
}

pub(crate) fn socket_pair() -> [c_int; 2] {
    let mut ends = [0; 2];
    // SAFETY: there is room for two.
    sure(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, ends.as_mut_ptr()) });
    ends
}

pub(crate) fn put(to: c_int, bytes: &[u8]) -> Outcome {
    // SAFETY: the bytes are there.
    unsafe { libc::write(to, bytes.as_ptr().cast(), bytes.len()) as Outcome }
}

pub(crate) fn get<const N: usize>(from: c_int) -> Outcome {
    let mut bytes = [0u8; N];
    // SAFETY: there is room.
    unsafe { libc::read(from, bytes.as_mut_ptr().cast(), N) as Outcome }
}

pub(crate) fn set_blocking(descriptor: c_int, blocking: bool) {
    // SAFETY: numbers only.
    unsafe {
        let flags = libc::fcntl(descriptor, libc::F_GETFL);
        let flags = match blocking {
            true => flags & !libc::O_NONBLOCK,
            false => flags | libc::O_NONBLOCK,
        };
        sure(libc::fcntl(descriptor, libc::F_SETFL, flags));
    }
}

/// Writes until the buffer is full.
pub(crate) fn fill(to: c_int) {
    set_blocking(to, false);
    while put(to, &[1; 4096]) > 0 {}
    set_blocking(to, true);
}

pub(crate) fn limit_of(socket: c_int, option: c_int) {
    let limit = timeval {
        tv_sec: 0,
        tv_usec: 300,
    };
    // SAFETY: the option is a `timeval`.
    sure(unsafe {
        let len = size_of::<timeval>() as u32;
        libc::setsockopt(
            socket,
            libc::SOL_SOCKET,
            option,
            (&raw const limit).cast(),
            len,
        )
    });
}

/// Makes a listener in the abstract name space, and returns its address.
pub(crate) fn listener(backlog: c_int) -> (c_int, libc::sockaddr_un) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!(
        "shotclock-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, SeqCst)
    );
    // SAFETY: zeros are an address, and the name fits in.
    unsafe {
        let mut address: libc::sockaddr_un = zeroed();
        address.sun_family = libc::AF_UNIX as u16;
        for (to, from) in address.sun_path[1..].iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        let socket = sure(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0));
        let len = size_of::<libc::sockaddr_un>() as u32;
        sure(libc::bind(socket, (&raw const address).cast(), len));
        sure(libc::listen(socket, backlog));
        (socket, address)
    }
}

pub(crate) fn connect(address: &libc::sockaddr_un, flags: c_int) -> (c_int, c_int) {
    // SAFETY: the address is there.
    unsafe {
        let socket = sure(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | flags, 0));
        let len = size_of::<libc::sockaddr_un>() as u32;
        (
            socket,
            libc::connect(socket, std::ptr::from_ref(address).cast(), len),
        )
    }
}

pub(crate) fn close(descriptor: c_int) {
    // SAFETY: a number.
    unsafe { libc::close(descriptor) };
}

/// Closes the descriptor of a call. Returns 0, or -1 if the call failed.
pub(crate) fn closed(descriptor: c_int) -> Outcome {
    if descriptor >= 0 {
        close(descriptor);
    }
    descriptor.into()
}

pub(crate) fn path(name: &str) -> CString {
    let name = format!("shotclock-{}-{name}", std::process::id());
    let path = std::env::temp_dir().join(name);
    CString::new(path.to_str().expect("a path of text")).expect("no zeros")
}

pub(crate) fn file(name: &str) -> (c_int, c_int) {
    let path = path(name);
    let open = || {
        // SAFETY: the path ends with a zero.
        sure(unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o600) })
    };
    let both = (open(), open());
    // SAFETY: as above.
    unsafe { libc::unlink(path.as_ptr()) };
    both
}

/// A System V object, which outlives the process unless it is removed.
pub(crate) struct Removed(pub(crate) c_int, fn(c_int));

impl Drop for Removed {
    fn drop(&mut self) {
        self.1(self.0);
    }
}

pub(crate) fn queue() -> Removed {
    // SAFETY: numbers only.
    let id = sure(unsafe { libc::msgget(libc::IPC_PRIVATE, 0o600) });
    Removed(id, |id| {
        // SAFETY: a number.
        unsafe { libc::msgctl(id, libc::IPC_RMID, null_mut()) };
    })
}

pub(crate) fn semaphore() -> Removed {
    // SAFETY: numbers only.
    let id = sure(unsafe { libc::semget(libc::IPC_PRIVATE, 1, 0o600) });
    Removed(id, |id| {
        // SAFETY: a number.
        unsafe { libc::semctl(id, 0, libc::IPC_RMID) };
    })
}

#[repr(C)]
struct Message {
    kind: libc::c_long,
    text: [u8; 1024],
}

pub(crate) fn send(queue: c_int, flags: c_int) -> Outcome {
    let message = Message {
        kind: 1,
        text: [0; 1024],
    };
    // SAFETY: the message is there.
    unsafe { libc::msgsnd(queue, (&raw const message).cast(), 1024, flags).into() }
}

pub(crate) fn receive(queue: c_int, flags: c_int) -> Outcome {
    let mut message = Message {
        kind: 0,
        text: [0; 1024],
    };
    // SAFETY: there is room.
    unsafe { libc::msgrcv(queue, (&raw mut message).cast(), 1024, 0, flags) as Outcome }
}

pub(crate) fn change(semaphore: c_int, by: i16, limit: Option<&timespec>) -> Outcome {
    let mut change = libc::sembuf {
        sem_num: 0,
        sem_op: by,
        sem_flg: 0,
    };
    // SAFETY: one change, and a limit or none.
    unsafe {
        match limit {
            None => libc::semop(semaphore, &mut change, 1).into(),
            Some(limit) => semtimedop(semaphore, &mut change, 1, limit).into(),
        }
    }
}

/// A word to wait for, at a fixed address.
pub(crate) fn word() -> &'static AtomicI32 {
    Box::leak(Box::default())
}

pub(crate) fn posix_semaphore() -> usize {
    // SAFETY: zeros are to be initialised, which happens here. The value does not move.
    unsafe {
        let semaphore: &'static mut libc::sem_t = Box::leak(Box::new(zeroed()));
        sure(libc::sem_init(semaphore, 0, 0));
        std::ptr::from_mut(semaphore).expose_provenance()
    }
}

pub(crate) fn sem_of(address: usize) -> *mut libc::sem_t {
    std::ptr::with_exposed_provenance_mut(address)
}

pub(crate) fn soon(clock: libc::clockid_t) -> timespec {
    let mut time = LIMIT;
    // SAFETY: it was written.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_nsec += LIMIT.tv_nsec;
    time.tv_sec += time.tv_nsec / 1_000_000_000;
    time.tv_nsec %= 1_000_000_000;
    time
}

pub(crate) fn child_that_sleeps() -> libc::pid_t {
    // SAFETY: the child makes two calls that are allowed after a fork in a program with threads.
    unsafe {
        match libc::fork() {
            0 => {
                libc::nanosleep(&LIMIT, null_mut());
                libc::_exit(0)
            }
            child => sure(child),
        }
    }
}

/// Returns the reason of this thread's last failure.
pub(crate) fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

pub(crate) fn set_errno(reason: c_int) {
    // SAFETY: of this thread.
    unsafe { *libc::__errno_location() = reason };
}

/// A path that is removed on drop.
pub(crate) struct RemovedFile(pub(crate) CString);

impl Drop for RemovedFile {
    fn drop(&mut self) {
        // SAFETY: the path ends with a zero.
        unsafe { libc::unlink(self.0.as_ptr()) };
    }
}

/// Makes a call without a function in the C library, as the library makes calls. By the function `syscall` it might fail,
/// because the number of the call is not in the code before it.
///
/// # Safety
///
/// As for the call.
pub(crate) unsafe fn bare<const NUMBER: i32>(arguments: [u64; 5]) -> Outcome {
    let [a, b, c, d, e] = arguments;
    let outcome: i64;
    // SAFETY: as for the caller. The operands name what the instruction changes.
    unsafe {
        std::arch::asm!(
            "mov eax, {number}",
            "syscall",
            number = const NUMBER,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            in("r8") e,
            out("rax") outcome,
            out("rcx") _,
            out("r11") _,
            options(nostack)
        );
    }
    if outcome < 0 {
        set_errno(-outcome as c_int);
    }
    outcome.max(-1)
}

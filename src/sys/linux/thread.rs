//! One thread, as the kernel knows it.

use std::ops::Range;
use std::time::Duration;

/// What another thread must know of one to look at it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Thread {
    /// The number under which the kernel knows it.
    pub(crate) id: u32,
    /// Where its stack is. Empty if that is not known.
    pub(crate) stack: Range<usize>,
}

/// Both clocks of a thread count nanoseconds since it began.
const NANOS_PER_SECOND: u64 = 1_000_000_000;

impl Thread {
    pub(crate) fn current() -> Option<Self> {
        Some(Self {
            id: current_id(),
            stack: stack().unwrap_or_default(),
        })
    }

    /// How long it has had a processor so far, in nanoseconds.
    ///
    /// The clock of a thread is named by its number, as `pthread_getcpuclockid` does it, but without
    /// a `pthread_t` that could be dangling: for a thread that has ended this is an error.
    pub(crate) fn cpu_time(&self) -> Option<u64> {
        const PER_THREAD: libc::clockid_t = 4;
        const SCHEDULER: libc::clockid_t = 2;
        let id = libc::clockid_t::try_from(self.id).ok()?;
        read_clock((!id << 3) | PER_THREAD | SCHEDULER)
    }

    /// Ends the process in the name of this thread, so that a core dump shows it first; or else in that of
    /// the calling one, as where the signal cannot be sent, or the thread has it masked.
    pub(crate) fn abort(&self) -> ! {
        // Long enough for a handler that writes a report of the crash.
        const PATIENCE: Duration = Duration::from_secs(10);
        if send(self.id, libc::SIGABRT) {
            std::thread::sleep(PATIENCE);
        }
        std::process::abort()
    }
}

/// How long all threads of the process have had a processor so far, in nanoseconds.
pub(crate) fn process_cpu_time() -> Option<u64> {
    read_clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn read_clock(clock: libc::clockid_t) -> Option<u64> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is ours to write; an unknown clock is an error and no more.
    let read = unsafe { libc::clock_gettime(clock, &mut time) };
    let (seconds, nanos) = (
        u64::try_from(time.tv_sec).ok()?,
        u64::try_from(time.tv_nsec).ok()?,
    );
    (read == 0).then(|| seconds * NANOS_PER_SECOND + nanos)
}

pub(super) fn current_id() -> u32 {
    // SAFETY: a system call without arguments, which cannot fail.
    let id = unsafe { libc::syscall(libc::SYS_gettid) };
    // A thread's number is a positive `pid_t`.
    id as u32
}

/// Sends a signal to one thread of this process.
pub(super) fn send(thread: u32, signal: libc::c_int) -> bool {
    // SAFETY: numbers only. A thread that is not of this process gets nothing.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal) == 0 }
}

/// The calling thread's stack.
fn stack() -> Option<Range<usize>> {
    if cfg!(miri) {
        return None;
    }
    let mut attributes = std::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
    let (mut low, mut len) = (std::ptr::null_mut(), 0);
    // SAFETY: `pthread_getattr_np` initialises the attributes if it succeeds, and only then they are
    // read and destroyed; the thread is the calling one, so its `pthread_t` is good.
    let found = unsafe {
        libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) == 0 && {
            let got = libc::pthread_attr_getstack(attributes.as_ptr(), &mut low, &mut len);
            libc::pthread_attr_destroy(attributes.as_mut_ptr());
            got == 0
        }
    };
    found.then(|| low.addr()..low.addr().saturating_add(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_knows_its_stack() {
        let local = 0u8;
        let thread = Thread::current().unwrap();
        assert!(cfg!(miri) || thread.stack.contains(&(&raw const local).addr()));
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no clocks of threads")]
    fn the_clock_of_a_thread_is_read_from_outside() {
        let thread = Thread::current().unwrap();
        let before = thread.cpu_time();
        let outside = std::thread::scope(|s| s.spawn(|| thread.cpu_time()).join().unwrap());
        assert!(before.is_some() && before <= outside && outside <= thread.cpu_time());
        let ended = std::thread::spawn(Thread::current).join().unwrap().unwrap();
        // It may take the kernel a moment to forget it.
        while ended.cpu_time().is_some() {
            std::thread::yield_now();
        }
    }
}

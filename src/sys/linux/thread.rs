//! A thread by its kernel id.

use std::ops::Range;
use std::time::Duration;

/// A thread, with what other threads need to observe it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Thread {
    /// The id that the kernel uses.
    pub(crate) id: u32,
    /// The addresses of its stack. Empty if they are unknown.
    pub(crate) stack: Range<usize>,
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

impl Thread {
    pub(crate) fn current() -> Option<Self> {
        Some(Self {
            id: current_id(),
            stack: stack().unwrap_or_default(),
        })
    }

    /// Returns its CPU time so far, in nanoseconds. `None` if the thread has ended.
    ///
    /// The clock is named by the id, as `pthread_getcpuclockid` does it, but without a `pthread_t` that could dangle.
    pub(crate) fn cpu_time(&self) -> Option<u64> {
        const PER_THREAD: libc::clockid_t = 4;
        const SCHEDULER: libc::clockid_t = 2;
        let id = libc::clockid_t::try_from(self.id).ok()?;
        read_clock((!id << 3) | PER_THREAD | SCHEDULER)
    }

    /// Aborts the process by a signal to this thread, so a core dump shows it first.
    ///
    /// Aborts from the calling thread if the signal cannot be sent, or if this thread blocks it.
    pub(crate) fn abort(&self) -> ! {
        // Enough for a handler that writes a crash report.
        const MAX_WAIT: Duration = Duration::from_secs(10);
        if send(self.id, libc::SIGABRT) {
            std::thread::sleep(MAX_WAIT);
        }
        std::process::abort()
    }
}

/// Returns the CPU time of all threads of the process so far, in nanoseconds.
pub(crate) fn process_cpu_time() -> Option<u64> {
    read_clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn read_clock(clock: libc::clockid_t) -> Option<u64> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call writes `time`. An unknown clock is an error.
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
    // A thread id is a positive `pid_t`.
    id as u32
}

/// Sends a signal to one thread of this process.
pub(super) fn send(thread: u32, signal: libc::c_int) -> bool {
    // SAFETY: the arguments are numbers. A thread of another process gets no signal.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal) == 0 }
}

/// Returns the addresses of the calling thread's stack.
fn stack() -> Option<Range<usize>> {
    if cfg!(miri) {
        return None;
    }
    let mut attributes = std::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
    let (mut low, mut len) = (std::ptr::null_mut(), 0);
    // SAFETY: the attributes are read and destroyed only if `pthread_getattr_np` has initialised them. The thread is the
    // calling one, so its `pthread_t` is valid.
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
    fn current_thread_knows_its_stack() {
        let local = 0u8;
        let thread = Thread::current().unwrap();
        assert!(cfg!(miri) || thread.stack.contains(&(&raw const local).addr()));
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no clocks of threads")]
    fn cpu_time_from_another_thread_is_that_of_the_thread() {
        let thread = Thread::current().unwrap();
        let before = thread.cpu_time();
        let outside = std::thread::scope(|s| s.spawn(|| thread.cpu_time()).join().unwrap());
        assert!(before.is_some() && before <= outside && outside <= thread.cpu_time());
        let ended = std::thread::spawn(Thread::current).join().unwrap().unwrap();
        // The kernel may still know the thread for a short time.
        while ended.cpu_time().is_some() {
            std::thread::yield_now();
        }
    }
}

//! Counts how often a thread executes one instruction, by a debug register of its processor.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::FromRawFd as _;

/// The kernel's `perf_event_attr` up to its second version. The `libc` crate does not have it. Zero means "not
/// requested" in each field.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    breakpoint_address: u64,
    breakpoint_length: u64,
}

const PERF_TYPE_BREAKPOINT: u32 = 5;
const HW_BREAKPOINT_X: u32 = 4;
/// Excludes the code of the kernel and of a hypervisor, because counting the own code needs fewer rights.
const EXCLUDE_KERNEL: u64 = 1 << 5;
const EXCLUDE_HV: u64 = 1 << 6;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;

/// The only length that the kernel accepts for an instruction: that of a `long` on x86, and of an instruction elsewhere.
const LENGTH_BYTES: u64 = if cfg!(target_arch = "x86_64") { 8 } else { 4 };

/// Counts how often one thread executes the instruction at one address, until it is dropped.
///
/// The count is exact. Each hit costs the thread an exception of about a microsecond. A processor has four such
/// registers, which debuggers use too.
#[derive(Debug)]
pub(crate) struct Breakpoint {
    event: File,
}

impl Breakpoint {
    /// Begins to count.
    ///
    /// # Errors
    ///
    /// The error says why the kernel does not permit it: most containers forbid the call. Under a seccomp filter the
    /// crate does not try. A filter may end the process for a call that it does not list, as systemd's
    /// `SystemCallFilter=@system-service` does, and no call says so in advance.
    pub(crate) fn set(thread: u32, address: u64) -> io::Result<Self> {
        if !is_unfiltered() {
            const WHY: &str =
                "a seccomp filter is in force, and may end the process for this system call";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, WHY));
        }
        let attributes = Attributes {
            kind: PERF_TYPE_BREAKPOINT,
            size: size_of::<Attributes>() as u32,
            flags: EXCLUDE_KERNEL | EXCLUDE_HV,
            breakpoint_type: HW_BREAKPOINT_X,
            breakpoint_address: address,
            breakpoint_length: LENGTH_BYTES,
            ..Attributes::default()
        };
        const ANY_PROCESSOR: libc::c_int = -1;
        const NO_GROUP: libc::c_int = -1;
        // SAFETY: the kernel reads `size` bytes of the attributes. No other argument is a pointer. The event only counts:
        // it neither stops nor signals the thread.
        let event = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attributes,
                thread,
                ANY_PROCESSOR,
                NO_GROUP,
                PERF_FLAG_FD_CLOEXEC,
            )
        };
        let Ok(event @ 0..) = libc::c_int::try_from(event) else {
            return Err(io::Error::last_os_error());
        };
        // SAFETY: the call has just returned this descriptor, so it is open and has no other owner.
        let event = unsafe { File::from_raw_fd(event) };
        Ok(Self { event })
    }

    /// Returns how often the thread has executed the instruction since. `None` if the kernel does not say.
    pub(crate) fn count(&self) -> Option<u64> {
        let mut count = [0; 8];
        (&self.event).read_exact(&mut count).ok()?;
        Some(u64::from_ne_bytes(count))
    }
}

/// Returns whether the calling thread surely has no seccomp filter.
fn is_unfiltered() -> bool {
    let status = std::fs::read("/proc/thread-self/status").unwrap_or_default();
    let mut lines = status.split(|byte| *byte == b'\n');
    lines.any(|line| line == b"Seccomp:\t0")
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use crate::sys::Thread;

    #[inline(never)]
    extern "C" fn counted() {
        std::hint::black_box(());
    }

    #[test]
    fn breakpoint_on_a_function_counts_its_calls_of_this_thread() {
        let thread = Thread::current().unwrap().id;
        let breakpoint = match Breakpoint::set(thread, counted as *const () as u64) {
            Ok(breakpoint) => breakpoint,
            Err(why) => return eprintln!("breakpoints are not permitted here: {why}"),
        };
        assert_eq!(breakpoint.count(), Some(0));
        for _ in 0..7 {
            std::hint::black_box(counted as extern "C" fn())();
        }
        std::thread::spawn(|| std::hint::black_box(counted as extern "C" fn())())
            .join()
            .unwrap();
        assert_eq!(breakpoint.count(), Some(7));
    }

    #[test]
    fn breakpoint_on_an_unknown_thread_is_an_error() {
        assert!(Breakpoint::set(u32::MAX >> 1, 0x1000).is_err());
    }
}

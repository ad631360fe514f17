//! Linux: observes threads and descriptors, and captures stacks.

mod breakpoint;
mod descriptor;
mod fence;
mod fork;
mod memory;
mod signals;
mod stack;
mod thread;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod capture;
#[cfg(target_arch = "x86_64")]
mod restart_syscall;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) use super::no_capture::Capturer;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) use capture::Capturer;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use capture::signal_of_captures;

pub(crate) use breakpoint::Breakpoint;
pub(crate) use descriptor::{file_type, is_stream, socket_timeout};
pub(crate) use fence::fence_every_thread;
pub(crate) use fork::notice_forks;
pub(crate) use memory::read_memory;
pub(crate) use signals::with_signals_blocked;
pub(crate) use stack::stack_pointer;
pub(crate) use thread::{Thread, process_cpu_time};

/// The capture signal, unless the user selects another. Its default action is to ignore it, so a late one does no harm.
/// Debuggers pass it on without a stop.
pub(crate) const CAPTURE_SIGNAL: i32 = libc::SIGURG;

/// Returns no signal: this processor has no captures.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn signal_of_captures() -> i32 {
    0
}

//! Linux: observes threads and descriptors, and captures stacks.

mod breakpoint;
mod descriptor;
mod fence;
mod fork;
#[cfg(all(
    feature = "stacks",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod mapped_file;
mod memory;
mod signals;
mod stack;
mod thread;

#[cfg(all(
    feature = "stacks",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod capture;
#[cfg(all(feature = "stacks", target_arch = "x86_64"))]
mod restart_syscall;
#[cfg(not(all(
    feature = "stacks",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
use super::no_capture as capture;
pub(crate) use capture::Capturer;
use capture::signal_of_captures;

pub(crate) use breakpoint::Breakpoint;
pub(crate) use descriptor::{file_type, is_stream, socket_timeout};
pub(crate) use fence::fence_every_thread;
pub(crate) use fork::notice_forks;
#[cfg(all(
    feature = "stacks",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
pub(crate) use mapped_file::{MappedFile, Parse};
pub(crate) use memory::read_memory;
pub(crate) use signals::with_signals_blocked;
pub(crate) use stack::stack_pointer;
pub(crate) use thread::{Thread, process_cpu_time};

/// The capture signal, unless the user selects another. Its default action is to ignore it, so a late one does no harm.
/// Debuggers pass it on without a stop.
pub(crate) const CAPTURE_SIGNAL: i32 = libc::SIGURG;

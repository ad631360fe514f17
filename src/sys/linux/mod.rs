//! What Linux tells of a thread, and lets be done to it.

mod breakpoint;
mod descriptor;
mod fence;
mod fork;
mod memory;
mod stack;
mod thread;

#[cfg(target_arch = "x86_64")]
mod again;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod capture;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) use super::no_capture::Capturer;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) use capture::Capturer;

pub(crate) use breakpoint::Breakpoint;
pub(crate) use descriptor::{file_type, socket_timeout};
pub(crate) use fence::fence_every_thread;
pub(crate) use fork::{is_forked, notice_forks};
pub(crate) use memory::read_memory;
pub(crate) use stack::stack_pointer;
pub(crate) use thread::{Thread, process_cpu_time};

/// The signal for captures unless another is chosen. Ignored by default, so that a late one does no
/// harm, and debuggers pass it on.
pub(crate) const CAPTURE_SIGNAL: i32 = libc::SIGURG;

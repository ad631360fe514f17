//! What Linux tells of a thread, and lets be done to it.

mod fence;
mod stack;

pub(crate) use fence::fence_every_thread;
pub(crate) use stack::stack_pointer;

/// The number under which the kernel knows the calling thread.
pub(crate) fn thread_id() -> Option<u32> {
    // SAFETY: a system call without arguments, which cannot fail.
    u32::try_from(unsafe { libc::syscall(libc::SYS_gettid) }).ok()
}

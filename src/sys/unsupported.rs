//! Stands in for `linux` on other systems and in loom models: each answer is "unknown".

use std::ops::Range;

pub(crate) use super::no_capture::Capturer;

pub(crate) const CAPTURE_SIGNAL: i32 = 0;

pub(crate) fn fence_every_thread() -> bool {
    false
}

pub(crate) fn read_memory(_: usize, _: &mut [u8]) -> usize {
    0
}

pub(crate) fn process_cpu_time() -> Option<u64> {
    None
}

#[inline(always)]
pub(crate) fn stack_pointer() -> usize {
    0
}

pub(crate) fn file_type(_: u64) -> Option<super::FileType> {
    None
}

pub(crate) fn is_stream(_: u64) -> Option<bool> {
    None
}

pub(crate) fn socket_timeout(_: u64, _: bool) -> Option<bool> {
    None
}

/// Runs the closure and changes no signal mask.
pub(crate) fn with_signals_blocked<T>(_: super::Unblocked, run: impl FnOnce() -> T) -> T {
    run()
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Thread {
    pub(crate) id: u32,
    pub(crate) stack: Range<usize>,
}

impl Thread {
    pub(crate) fn current() -> Option<Self> {
        None
    }

    pub(crate) fn cpu_time(&self) -> Option<u64> {
        None
    }

    pub(crate) fn abort(&self) -> ! {
        std::process::abort()
    }
}

#[derive(Debug)]
pub(crate) struct Breakpoint;

impl Breakpoint {
    pub(crate) fn set(_: u32, _: u64) -> std::io::Result<Self> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn count(&self) -> Option<u64> {
        None
    }
}

/// Registers no handlers. The process number alone tells a fork.
pub(crate) fn notice_forks(_: fn(), _: fn()) {}

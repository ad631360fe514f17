//! The result of a capture, the same on every platform.

use std::fmt;

/// The registers that the unwinder needs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Registers {
    pub(crate) ip: u64,
    pub(crate) sp: u64,
    pub(crate) fp: u64,
    /// The link register of aarch64.
    #[cfg_attr(
        not(target_arch = "aarch64"),
        allow(dead_code, reason = "x86-64 has none")
    )]
    pub(crate) lr: u64,
}

/// A copy of a stack, from the stack pointer on.
#[derive(Debug)]
pub(crate) struct Copied {
    pub(crate) registers: Registers,
    /// The address of the first byte.
    pub(crate) from: usize,
    pub(crate) bytes: Vec<u8>,
}

/// Why there is no copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoCapture {
    /// The crate supports no captures on this operating system or processor, or was built without them.
    Unsupported,
    /// The crate has installed its handler for another signal already.
    InUse,
    /// The signal has a handler of the program's.
    SignalTaken,
    /// The number is not that of a signal that a program can handle.
    NoSuchSignal,
    /// Other threads did not answer, and used up the time of this scan.
    NotRequested,
    /// The signal could not be sent.
    NotSent,
    /// The thread left the place where the sentinel saw it.
    Continued,
    /// The thread has the signal blocked.
    Blocked,
    /// The thread waits in a system call that the signal would make fail.
    WouldFail,
    /// The thread's system call is unknown, and so is the effect of a signal on it.
    UnknownCall,
    /// The answer to an earlier request has not arrived.
    Busy,
    /// The thread did not answer in time: it blocks the signal, or is not scheduled.
    NoAnswer,
}

impl NoCapture {
    /// Returns the reason as text for reports and capabilities.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            NoCapture::Unsupported if !cfg!(feature = "stacks") => {
                "built without the feature `stacks`"
            }
            NoCapture::Unsupported => "this operating system or processor is not supported",
            NoCapture::InUse => "another signal is in use already",
            NoCapture::SignalTaken => "the signal has another handler",
            NoCapture::NoSuchSignal => "the signal cannot be handled",
            NoCapture::NotRequested => "not requested: other threads did not answer in time",
            NoCapture::NotSent => "the signal could not be sent",
            NoCapture::Continued => "the thread continued before the request",
            NoCapture::Blocked => "the thread has the capture signal blocked",
            NoCapture::WouldFail => "a signal would make the thread's system call fail",
            NoCapture::UnknownCall => "the system call that the thread waits in is unknown",
            NoCapture::Busy => "the answer to an earlier request has not arrived",
            NoCapture::NoAnswer => {
                "the thread did not answer: it blocks the signal, or is not scheduled"
            }
        }
    }
}

impl fmt::Display for NoCapture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

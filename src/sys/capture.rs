//! What a capture gives, wherever it is made.

use std::fmt;

/// The registers that unwinding takes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Registers {
    pub(crate) ip: u64,
    pub(crate) sp: u64,
    pub(crate) fp: u64,
    /// The link register, where there is one.
    #[cfg_attr(
        not(target_arch = "aarch64"),
        allow(dead_code, reason = "x86-64 has none")
    )]
    pub(crate) lr: u64,
}

/// A copy of a stack, from its top.
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
    /// Not on this operating system or processor.
    Unsupported,
    /// The handler is installed already, by another copy of this crate's set-up.
    InUse,
    /// Somebody else handles the signal.
    SignalTaken,
    /// The number is no signal that can be handled.
    NoSuchSignal,
    /// Threads before it did not answer, and used up the time for which one look may wait.
    Unasked,
    /// The signal could not be sent.
    NotSent,
    /// The thread goes on, from where it was seen.
    WentOn,
    /// The thread has the signal blocked.
    Blocked,
    /// The thread waits in a system call that would fail by the signal.
    WouldFail,
    /// Which system call the thread waits in is not known, so neither is what a signal would do to it.
    Unseen,
    /// A late answer is still awaited.
    Busy,
    /// The thread did not answer in time: it has the signal masked, or is not run.
    NoAnswer,
}

impl NoCapture {
    pub(crate) fn words(self) -> &'static str {
        match self {
            NoCapture::Unsupported => "this operating system or processor is not supported",
            NoCapture::InUse => "another signal is in use already",
            NoCapture::SignalTaken => "the signal has another handler",
            NoCapture::NoSuchSignal => "the signal cannot be handled",
            NoCapture::Unasked => "it was not asked: other threads did not answer in time",
            NoCapture::NotSent => "the signal could not be sent",
            NoCapture::WentOn => "the thread went on before it could be asked",
            NoCapture::Blocked => "the thread has the capture signal blocked",
            NoCapture::WouldFail => "a signal would make the thread's system call fail",
            NoCapture::Unseen => "it is not known which system call the thread waits in",
            NoCapture::Busy => "the answer to an earlier request has not come yet",
            NoCapture::NoAnswer => {
                "the thread did not answer: it has the signal masked, or is not run"
            }
        }
    }
}

impl fmt::Display for NoCapture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

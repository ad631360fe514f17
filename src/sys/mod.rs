//! Floor 0: everything `unsafe` or particular to an operating system, and nothing that knows a
//! watch, a budget or a report.
//!
//! `linux` and `unsupported` have one contract, so that callers carry no `cfg`.

#![allow(unsafe_code)]

mod capture;
mod errand;
mod flagged;
mod guarded_drop;
mod static_ref;

// The models run where no operating system is: see `sync`.
#[cfg(all(target_os = "linux", not(shotclock_loom)))]
mod linux;
#[cfg(all(target_os = "linux", not(shotclock_loom)))]
pub(crate) use linux::*;
#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(shotclock_loom)
)))]
mod no_capture;
#[cfg(any(not(target_os = "linux"), shotclock_loom))]
mod unsupported;
#[cfg(any(not(target_os = "linux"), shotclock_loom))]
pub(crate) use unsupported::*;

/// Which signals a thread of the crate takes. It takes no other one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Unblocked {
    /// Those by which the kernel tells a thread of its own fault.
    Faults,
    /// Those, and the one by which a thread is asked for its stack.
    Captures,
    /// Those, and the one of profilers: the thread runs code of the program's.
    #[cfg_attr(not(feature = "rayon"), allow(dead_code, reason = "no such thread"))]
    CapturesAndProfile,
}

/// What a file descriptor refers to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum FileType {
    Socket,
    /// Named or not.
    Pipe,
    /// Or a directory, or a disk.
    File,
    /// A terminal, say.
    Device,
}

pub(crate) use capture::{Copied, NoCapture, Registers};
pub(crate) use flagged::FlaggedRef;
pub(crate) use guarded_drop::{Enter, GuardedDrop};
pub(crate) use static_ref::StaticRef;

//! Floor 0: all `unsafe` code, and all calls of the operating system.
//!
//! This module knows no watch, budget or report. `linux` and `unsupported` have the same signatures, so callers
//! need no `cfg`.

#![allow(unsafe_code)]

mod asymmetric_fence;
mod capture;
mod counter;
mod flagged_ref;
mod guarded_drop;
pub(crate) mod request_cell;
mod static_ref;

// The loom models run without an operating system: see `sync`.
#[cfg(all(target_os = "linux", not(shotclock_loom)))]
mod linux;
#[cfg(all(target_os = "linux", not(shotclock_loom)))]
pub(crate) use linux::*;
#[cfg(not(all(
    feature = "stacks",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(shotclock_loom)
)))]
mod no_capture;
#[cfg(any(not(target_os = "linux"), shotclock_loom))]
mod unsupported;
#[cfg(any(not(target_os = "linux"), shotclock_loom))]
pub(crate) use unsupported::*;

/// The signals that a thread of the crate accepts. All others are blocked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Unblocked {
    /// The signals that the kernel sends to a thread that faults.
    Faults,
    /// These and the capture signal, by which the sentinel requests a stack.
    Captures,
    /// These and the profilers' signal, because the thread runs the program's code.
    #[cfg_attr(not(feature = "rayon"), allow(dead_code, reason = "no such thread"))]
    CapturesAndProfile,
}

/// What a file descriptor refers to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum FileType {
    Socket,
    /// A pipe or a FIFO.
    Pipe,
    /// A file, a directory or a block device.
    File,
    /// A character device, such as a terminal.
    Device,
}

pub(crate) use crate::sync::fork::{is_forked, note_home_process};
pub(crate) use asymmetric_fence::{heavy_fence, light_fence};
pub(crate) use capture::{Copied, NoCapture, Registers};
pub(crate) use counter::{has_steady_counter, read_counter};
pub(crate) use flagged_ref::FlaggedRef;
pub(crate) use guarded_drop::{Enter, GuardedDrop};
pub(crate) use static_ref::StaticRef;

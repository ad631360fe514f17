//! Floor 0: everything `unsafe` or particular to an operating system, and nothing that knows a
//! watch, a budget or a report.
//!
//! `linux` and `unsupported` have one contract, so that callers carry no `cfg`.

#![allow(unsafe_code)]

mod flagged;
mod guarded_drop;
mod static_ref;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) use linux::*;
#[cfg(not(target_os = "linux"))]
mod unsupported;
#[cfg(not(target_os = "linux"))]
pub(crate) use unsupported::*;

pub(crate) use flagged::FlaggedRef;
pub(crate) use guarded_drop::{Enter, GuardedDrop};
pub(crate) use static_ref::StaticRef;

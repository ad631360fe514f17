//! Floor 0: everything `unsafe`, and nothing that knows a watch, a budget or a report.

#![allow(unsafe_code)]

mod flagged;
mod guarded_drop;

pub(crate) use flagged::FlaggedRef;
pub(crate) use guarded_drop::{Enter, GuardedDrop};

//! Floor 2: records the last polls of the process that took more than half of their budgets.
//!
//! The record shows afterwards what the threads were doing. Only the debug page reads it (feature `page`). Builds
//! without that feature use `disabled`, which has the same signatures and records nothing.

use std::num::NonZeroU64;

use crate::report::SectionKind;

#[cfg(any(test, feature = "page"))]
mod enabled;
#[cfg(any(test, feature = "page"))]
pub(crate) use enabled::{prepare, read, record};

#[cfg(not(any(test, feature = "page")))]
mod disabled;
#[cfg(not(any(test, feature = "page")))]
pub(crate) use disabled::{prepare, record};

/// One poll that has ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RecordedPoll {
    /// The id of the watch.
    pub(crate) watch: u64,
    pub(crate) kind: SectionKind,
    /// The index of the thread's slot.
    pub(crate) slot: usize,
    /// The poll's sequence number in the slot.
    pub(crate) seq: Option<NonZeroU64>,
    /// The start, as a raw reading of the machine's clock.
    pub(crate) start: u64,
    pub(crate) elapsed_nanos: u64,
    pub(crate) budget_nanos: u64,
}

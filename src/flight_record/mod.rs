//! Floor 2: the last polls that took more than half of their budgets, in a ring of the process's.
//!
//! For who asks afterwards what the threads were doing. Only the page reads it (feature `page`): `enabled` is
//! there where it does, and otherwise `disabled`, which has the same signature and remembers nothing.

use std::num::NonZeroU64;

use crate::slot::Kind;

#[cfg(any(test, feature = "page"))]
mod enabled;
#[cfg(any(test, feature = "page"))]
pub(crate) use enabled::{note, prepare, read};

#[cfg(not(any(test, feature = "page")))]
mod disabled;
#[cfg(not(any(test, feature = "page")))]
pub(crate) use disabled::{note, prepare};

/// One poll that has ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Passage {
    /// The id of the watch.
    pub(crate) watch: u64,
    pub(crate) kind: Kind,
    /// The number of the thread's slot.
    pub(crate) slot: usize,
    /// Its number there.
    pub(crate) opening: Option<NonZeroU64>,
    /// A raw reading of the machine's clock.
    pub(crate) start: u64,
    /// Nanoseconds.
    pub(crate) elapsed: u64,
    pub(crate) budget: u64,
}

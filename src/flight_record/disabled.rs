//! Records nothing, in builds where nothing can read the record.

use super::Entry;

pub(crate) fn prepare() {}

#[inline(always)]
pub(crate) fn record(_: Entry) {}

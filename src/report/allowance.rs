//! The limit that a program declared with `allow_blocking`.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::nanos_of;

/// Describes the blocking that [`allow_blocking`](crate::allow_blocking) allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Allowance {
    /// The reason that the program gave.
    pub reason: Arc<str>,
    /// The longest allowed time.
    pub max: Duration,
}

impl Allowance {
    pub(crate) fn new(reason: Arc<str>, max: Duration) -> Self {
        Self { reason, max }
    }

    pub(crate) fn max_nanos(&self) -> u64 {
        nanos_of(self.max)
    }
}

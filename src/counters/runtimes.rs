//! Counters of one guarded runtime.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::named::Named;
use crate::pending_durations::{RUNTIME_LAG, Series};

/// Counts what happens to the workers of the runtimes of one name.
#[derive(Debug)]
pub(crate) struct RuntimeCounters {
    pub(crate) name: Arc<str>,
    /// How long a probe waited for a worker, from its spawn to its poll.
    pub(crate) lag: &'static Series,
    /// Workers that are stuck now.
    pub(crate) stuck: AtomicU64,
    /// Times that a worker became stuck.
    pub(crate) stalls: AtomicU64,
    /// Workers that have not returned to their driver for ten budgets, without proof that they are stuck.
    pub(crate) busy: AtomicU64,
}

impl Named for RuntimeCounters {
    fn new(name: Arc<str>) -> Self {
        Self {
            lag: Series::forever(RUNTIME_LAG, "runtime", &name),
            name,
            stuck: AtomicU64::new(0),
            stalls: AtomicU64::new(0),
            busy: AtomicU64::new(0),
        }
    }

    fn name(&self) -> &str {
        &self.name
    }
}

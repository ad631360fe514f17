//! What is counted of one guarded runtime.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::by_name::Named;
use crate::samples::Series;

/// See the module.
#[derive(Debug)]
pub(crate) struct RuntimeCounts {
    pub(crate) name: Arc<str>,
    /// How long tasks waited that were woken from outside.
    pub(crate) lag: &'static Series,
    /// How many workers are stuck at this moment.
    pub(crate) stuck: AtomicU64,
    /// How often a worker was found to be stuck.
    pub(crate) stalls: AtomicU64,
    /// How many workers have not returned to their driver for ten budgets, and are not proved to be stuck.
    pub(crate) busy: AtomicU64,
}

impl Named for RuntimeCounts {
    fn new(name: Arc<str>) -> Self {
        Self {
            lag: Series::forever("shotclock_runtime_lag_seconds", "runtime", &name),
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

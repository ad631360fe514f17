//! Counters of one lane name.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::named::Named;
use crate::pending_durations::{OFFLOAD_RUN, OFFLOAD_WAIT, Series};

/// Counts what the lanes of one name do.
#[derive(Debug)]
pub(crate) struct LaneCounters {
    pub(crate) name: Arc<str>,
    pub(crate) wait: &'static Series,
    pub(crate) run: &'static Series,
    pub(crate) queued: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) panics: AtomicU64,
    pub(crate) inline: AtomicU64,
}

impl Named for LaneCounters {
    fn new(name: Arc<str>) -> Self {
        Self {
            wait: Series::forever(OFFLOAD_WAIT, "lane", &name),
            run: Series::forever(OFFLOAD_RUN, "lane", &name),
            name,
            queued: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            inline: AtomicU64::new(0),
        }
    }

    fn name(&self) -> &str {
        &self.name
    }
}

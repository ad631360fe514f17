//! Floor 3: publishes counts, gauges and durations through the `metrics` facade, in batches, on a thread of the crate.
//!
//! `enabled` and `disabled` have the same signatures, so callers need no `cfg`.

#[cfg(feature = "metrics")]
mod enabled;
#[cfg(feature = "metrics")]
mod series;

#[cfg(feature = "prometheus")]
pub(crate) use enabled::{between_batches, buckets_are_counters, publish_and};
#[cfg(feature = "metrics")]
pub(crate) use enabled::{
    publish, publish_buckets_as_counters, record_duration, record_slow_poll, register, start,
};
#[cfg(feature = "prometheus")]
pub(crate) use series::{CULPRITS, HISTOGRAMS, POLL_BUSY, POLL_DURATION, seconds};

#[cfg(not(feature = "metrics"))]
mod disabled;
#[cfg(not(feature = "metrics"))]
pub(crate) use disabled::{record_duration, record_slow_poll, register, start};

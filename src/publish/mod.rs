//! Floor 3: what is published through the `metrics` facade, in batches, by a thread of the crate's own.
//!
//! `enabled` and `disabled` have one signature, so that callers carry no `cfg`.

#[cfg(feature = "metrics")]
mod enabled;
#[cfg(feature = "metrics")]
mod series;

#[cfg(feature = "prometheus")]
pub(crate) use enabled::{between_batches, buckets_are_counters, publish_and};
#[cfg(feature = "metrics")]
pub(crate) use enabled::{
    publish, publish_buckets_as_counters, register, sample, slow_poll, start,
};
#[cfg(feature = "prometheus")]
pub(crate) use series::{CULPRITS, HISTOGRAMS, POLL_BUSY, POLL_DURATION, seconds};

#[cfg(not(feature = "metrics"))]
mod disabled;
#[cfg(not(feature = "metrics"))]
pub(crate) use disabled::{register, sample, slow_poll, start};

//! Floor 4: sends reports to the reporters.
//!
//! The [`Dispatcher`] counts a slow poll under its cause, applies the rate limit, makes the report and offers it to the
//! queue of each [`ReporterThread`]. The default reporter logs through `tracing`; the history sums culprits and keeps
//! recent reports for the debug page.

pub(crate) mod culprit_sample;
pub(crate) mod culprit_totals;
mod deferred;
mod dispatcher;
mod history;
#[cfg(feature = "page")]
mod recent;
mod repetition;
pub(crate) mod reporter_thread;
mod stuck_workers;
mod tracing_reporter;

pub(crate) use deferred::{is_any as is_any_deferred, run_all as run_deferred};
#[cfg(feature = "testing")]
pub(crate) use dispatcher::finished_report;
pub(crate) use dispatcher::{Dispatcher, Reporters};
pub(crate) use history::{History, HistoryReporter};
#[cfg(feature = "page")]
pub(crate) use recent::Recent;
pub(crate) use reporter_thread::ReporterThread;
pub(crate) use tracing_reporter::TracingReporter;

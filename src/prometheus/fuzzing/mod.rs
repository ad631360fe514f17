//! What is fuzzed of the text for Prometheus and of its listener.

#![allow(
    clippy::missing_panics_doc,
    reason = "a target panics where it finds something"
)]

mod http;
mod metrics;

pub use http::http;
pub use metrics::metrics;

//! Assertions on poll budgets, audits, and tools to test a watchdog's settings (feature `testing`).
//!
//! [`assert_poll_budget!`](crate::assert_poll_budget) fails a test if a poll exceeds a budget. [`audit`] returns the times of
//! all polls of a future. `audit_service` does so for each call of a service (with the feature `tower`). [`Recorder`] and
//! [`MockClock`] test the settings of a watchdog, or a reporter.
//!
//! ```toml
//! [dev-dependencies]
//! shotclock = { version = "0.1", features = ["testing"] }
//! ```
//!
//! # A whole test
//!
//! The macro wraps the body of a test:
//!
//! ```
//! use shotclock::assert_poll_budget;
//! use std::time::Duration;
//!
//! const BUDGET: Duration = Duration::from_millis(500);
//!
//! # async fn handler() -> u32 { 200 }
//! # /*
//! #[tokio::test]
//! # */
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! # let _: () =
//! // async fn handler_keeps_to_its_budget() {
//! assert_poll_budget!(BUDGET, async {
//!     assert_eq!(handler().await, 200);
//! }).await
//! // }
//! # ;
//! # }
//! ```
//!
//! # On which runtime
//!
//! The assertions work on any runtime and without one. They use the machine's clock, so `start_paused = true` does not stop
//! it. Audits nest, and any number may run in one process.
//!
//! The sentinel sees an audited poll in flight, but under no watch of yours. So it is in no statistics and no metrics, and
//! does not change [`yield_after`](crate::yield_after). The tested code behaves as it does without an audit.

mod audit;
mod auditor;
mod budget;
mod collector;
mod counting_waker;
mod failure;
mod finish_guard;
mod mock_clock;
mod origin;
mod records;
mod sentinel_hook;
#[cfg(feature = "tower")]
mod service;
mod text;
mod thread_times;

pub use audit::{Audit, Auditing, audit};
pub use budget::{__poll_budget, ByPoll, ByPollNext, PollBudget, Pollable};
pub use collector::Recorder;
pub use mock_clock::MockClock;
pub use records::AuditedPoll;
#[cfg(feature = "tower")]
pub use service::{AuditedCall, AuditedService, audit_service};

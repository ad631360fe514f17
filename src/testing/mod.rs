//! Assertions on poll budgets, and what else tests of async code need (feature `testing`).
//!
//! [`assert_poll_budget!`](crate::assert_poll_budget) fails a test in which a poll held its worker for
//! too long; [`audit`] tells all that there is to know of the polls of a future;
//! `audit_service` does so for every call of a service (with the feature `tower`). A
//! [`Recorder`] and a [`MockClock`] are for who tests a watchdog's set-up, or a reporter.
//!
//! ```toml
//! [dev-dependencies]
//! shotclock = { version = "0.1", features = ["testing"] }
//! ```
//!
//! # A whole test
//!
//! There is no attribute that audits a test: two lines around its body do it, and say it plainly.
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
//! // async fn the_handler_is_quick() {
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
//! On any, and on none. The time of a poll is the machine's: `start_paused = true` does not stop it.
//! Audits nest, and any number of them may run in one process.
//!
//! While a poll is audited it is in flight for the sentinel, under no watch of yours: it is in no
//! statistics, in no metrics and in the way of no [`yield_after`](crate::yield_after), so that what is
//! tested behaves as it does untested.

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

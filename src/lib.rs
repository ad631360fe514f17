//! A shot clock for cooperative multitasking.
//!
//! Async tasks share their threads by choice: between two `.await`s a task holds its worker, and
//! nobody takes it away. One task that computes or blocks there makes every other one late.
//! `shotclock` times each such possession (a *poll*), says which one was too long, and gives long
//! work easy ways to pass the ball.
//!
//! - **Watch**: [`WatchExt::watched`] wraps a future or stream; [`Watch::stats`] and
//!   [`Watchdog::snapshot`] tell what was counted.
//! - **Report**: a poll over its budget is a [`SlowPoll`], told while it is still stuck and once
//!   more when it has ended, to reporters on threads of their own; the default one logs it through
//!   `tracing`.
//! - **Metrics**: counters and gauges through the `metrics` facade, and with the feature
//!   `prometheus` a `/metrics` that a stuck runtime still answers.
//! - **Cooperate**: [`yield_every`] gives the worker back from a long loop.
//! - **Offload**: [`offload`] runs a closure on a bounded number of other threads.
//!
//! # Examples
//!
//! ```
//! use shotclock::{SlowPoll, WatchExt as _, Watchdog};
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), shotclock::Error> {
//! let watchdog = Watchdog::builder()
//!     .budget(Duration::from_millis(10))
//!     .on_slow_poll(|slow: &SlowPoll| eprintln!("{slow}"))
//!     .build()?;
//! let checkout = watchdog.watch("checkout");
//!
//! let order = async {
//!     std::thread::sleep(Duration::from_millis(25)); // a mistake
//!     "order 7"
//! };
//! order.watched(&checkout).await;
//!
//! assert_eq!(checkout.stats().slow_polls, 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Which poll is blamed
//!
//! Watched futures nest. The innermost culprit is reported, once: an outer poll is slow only if what
//! is left of it, less the slow polls inside that were reported already, is over its own budget.
//! Histograms hold whole polls; [`WatchStats::busy`] holds self time, so that it adds up.
//!
//! A poll that panics is a poll, and so is one in which a future is dropped or cancelled. The
//! destructor of a watched future is timed as well, because it runs on the worker too: it adds to
//! the busy time, and if it was slow (over its budget and 10 µs, or 10 ms where the future was done) it
//! counts, and is reported, as a slow poll.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `metrics` | yes | counters and gauges through the `metrics` facade |
//! | `prometheus` | no | the module `prometheus`: one text with all histograms, and a listener on its own thread |
//!
//! # Limitations
//!
//! - Time is wall time. A poll may be slow because the operating system did not run its thread; the
//!   cause that is reported is [`Cause::Unknown`].
//! - Time in suspend is not seen where the clock does not count it.
//! - Polls are told apart to a depth of 15 watches inside one another; what is nested deeper counts
//!   in its own histogram, while its time and its blame are the outer one's.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod allow;
mod cause;
mod cgroup;
mod clock;
mod contain;
mod error;
mod histogram;
mod limit;
mod offload;
mod overrun;
mod pace;
mod poll;
mod proc;
#[cfg(feature = "prometheus")]
pub mod prometheus;
mod publish;
mod report;
mod samples;
mod sentinel;
mod slot;
mod stack;
mod suspension;
mod sync;
mod sys;
mod table;
mod verdict;
mod watch;
mod watchdog;
mod watched;

pub use allow::{Allowed, allow_blocking};
pub use cause::{Cause, Split, Syscall};
pub use error::Error;
pub use offload::{OffloadError, PanicPayload, offload};
pub use pace::{Pace, Tick, yield_every};
pub use report::{Path, Phase, Reporter, SlowPoll};
pub use sentinel::{Capabilities, Capability};
pub use slot::{Allowance, Kind, OtherThread, ThreadInfo};
pub use stack::{Frame, Stack};
pub use watch::{Health, Snapshot, Stacks, Status, Watch, WatchStats};
pub use watchdog::{Builder, Escalation, Timing, Watchdog};
pub use watched::{Entered, WatchExt, Watched};

/// The examples of the README run as well.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests;

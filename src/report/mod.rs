//! Receive reports of slow polls and stuck workers.
//!
//! A [`Reporter`] gets a [`SlowPoll`] for each poll that exceeds its budget, and a [`StuckWorker`] for each stuck
//! worker of a guarded runtime. Both say the same things in the same words: how long, why ([`Cause`]), where
//! ([`Stack`]), what else was going on ([`RuntimeSnapshot`]), and what to do (`hint`).
//!
//! The watchdog reports a poll or worker when it exceeds its budget, each time that its age has doubled, and once at its
//! end. All these reports share one id. [`Phase`] tells them apart.
//!
//! # Examples
//!
//! ```
//! use shotclock::report::Phase;
//! use shotclock::{Cause, SlowPoll, Watchdog};
//!
//! let watchdog = Watchdog::builder()
//!     .on_slow_poll(|slow: &SlowPoll| match (slow.phase, &slow.cause) {
//!         (Phase::Running, Cause::Blocked(call)) => eprintln!("{} blocks in {call}", slow.watch),
//!         _ => eprintln!("{slow}"),
//!     })
//!     .build()?;
//! # drop(watchdog);
//! # Ok::<(), shotclock::Error>(())
//! ```

mod allowance;
mod cause;
mod culprits;
mod hint;
mod incident;
mod other_thread;
mod reporter;
mod runtime_snapshot;
mod section_kind;
mod slow_poll;
mod stuck_worker;
mod thread_info;

pub use crate::stack::{Frame, Stack};
pub use allowance::Allowance;
pub(crate) use cause::Resource;
pub use cause::{Cause, Syscall, TimeBreakdown};
pub use culprits::{Culprit, Culprits};
pub(crate) use incident::Incident;
pub use incident::{Path, Phase};
pub use other_thread::OtherThread;
pub use reporter::Reporter;
pub(crate) use reporter::WorkerReporter;
pub use runtime_snapshot::RuntimeSnapshot;
pub use section_kind::SectionKind;
pub(crate) use slow_poll::PollContext;
pub use slow_poll::SlowPoll;
pub use stuck_worker::{StuckKind, StuckWorker};
pub use thread_info::ThreadInfo;

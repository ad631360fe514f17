//! Read what a watchdog has counted.
//!
//! [`Watch::stats`](crate::Watch::stats) returns the [`WatchStats`] of one watch,
//! [`Watchdog::snapshot`](crate::Watchdog::snapshot) those of all, and [`Watchdog::health`](crate::Watchdog::health)
//! says whether a poll is stalled now. Reading them takes no lock that a poll could wait for.
//!
//! # Examples
//!
//! ```
//! use shotclock::stats::Status;
//! use shotclock::Watchdog;
//!
//! let watchdog = Watchdog::builder().build()?;
//! drop(watchdog.watch("checkout").enter());
//! let snapshot = watchdog.snapshot();
//! assert_eq!(snapshot.get("checkout").map(|stats| stats.watch.as_ref()), Some("checkout"));
//! assert_eq!(watchdog.health().status, Status::Responsive);
//! # Ok::<(), shotclock::Error>(())
//! ```

pub use crate::watch::{Health, Snapshot, Status, WatchStats};

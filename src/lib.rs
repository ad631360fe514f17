//! Watch the polls of a tokio service at run time.
//!
//! Async tasks share their threads by cooperation: between two `.await`s a task keeps its worker. A task that computes or
//! blocks there delays every other task. `shotclock` times every poll. It reports one that exceeds its budget
//! *while it still runs*, with the line and the cause, and offers tools to yield or offload.
//!
//! - **Guard**: [`guard()`] in the first line of `main` makes the sentinel scan every worker of the runtime, without
//!   wrapping any future. [`Watchdog::guard`] does it for any runtime.
//! - **Watch**: [`WatchExt::watched`] wraps a future or stream. [`Watch::stats`] and [`Watchdog::snapshot`] return what
//!   was counted, and [`Watchdog::health`] says what is stalled now. See [`stats`].
//! - **Report**: a [`Reporter`] gets a [`SlowPoll`] for each poll over its budget, on a thread of its own. It has the
//!   [`Cause`], the [`Stack`](report::Stack) of the thread, and a hint. The default reporter logs through `tracing`. See
//!   [`report`].
//! - **Metrics**: counters and gauges go through the `metrics` facade. The feature `prometheus` adds a `/metrics` that
//!   answers even while the runtime is stuck.
//! - **Look**: [`Watchdog::culprits`] lists the functions that held workers longest. The feature `page` shows all of it
//!   on one page.
//! - **Escalate**: [`WatchdogBuilder::escalate`] acts on a stall that lasts. [`allow_blocking()`] declares an exception.
//! - **Cooperate**: [`yield_every`] and [`yield_after`] give the worker back from a long loop, by count or by time. See
//!   [`coop`].
//! - **Offload**: [`offload()`] runs a closure on a bounded number of other threads. A [`Lane`] has a limit, a bounded
//!   queue and cancellation, and [`OffloadExt::offloaded`] polls a whole future there. See [`mod@offload`].
//! - **Assert**: with the feature `testing`, `assert_poll_budget!` fails a test in which a poll takes too long by its own
//!   action, on a busy machine too. `testing::audit` records all polls of a future.
//! - **Contain**: [`Watch::contained`] hands the worker's other tasks over before a poll that is expected to be slow.
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
//! # Which poll is charged
//!
//! Watched futures nest. The innermost culprit is reported, once: an outer poll is slow only if its time without the
//! reported slow polls inside exceeds its own budget. Histograms hold whole polls. [`WatchStats::busy`] holds self time,
//! so it sums.
//!
//! A poll that panics is a poll, and so is one in which a future is dropped or cancelled. The crate also times the
//! destructor of a watched future, because it runs on the worker too. It adds to the busy time. A slow destructor (over
//! its budget and 10 µs, or 10 ms where the future was done) counts and is reported as a slow poll.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `metrics` | yes | counters and gauges through the `metrics` facade |
//! | `axum` | no | the debug page as a router for axum |
//! | `page` | no | the module `page`: one HTML page and JSON; a flight record for Perfetto |
//! | `rayon` | no | lanes on a rayon thread pool |
//! | `serde` | no | `Serialize` for reports, statistics, culprits and health |
//! | `testing` | no | the module `testing`: assertions on poll budgets, audits, a collector of reports, a mocked clock |
//! | `tower` | no | `WatchLayer` for services; with `testing`, audits of them |
//! | `systemd` | no | the module `systemd`: a heartbeat that stops while a poll is stalled (Linux) |
//! | `prometheus` | no | the module `prometheus`: one text with all histograms, and a listener on its own thread |
//!
//! # Public dependencies
//!
//! Types of these crates are part of this crate's interface. A new major version of one of them (for 0.x, a new minor
//! version) takes a new major version of `shotclock`.
//!
//! | dependency | where |
//! |---|---|
//! | `tokio` 1 | [`Watchdog::guard`], [`Watchdog::guard_builder`], [`SlowPoll::task`] |
//! | `tracing` 0.1 | [`SlowPoll::span`] |
//! | `futures-core` 0.3 | `Stream` for watched, paced and offloaded streams |
//! | `http` 1, `http-body` 1, `tower-layer` 0.3, `tower-service` 0.3 | feature `tower` |
//! | `metrics` 0.24 | feature `metrics`: the facade's recorder that the program installs |
//! | `metrics-exporter-prometheus` 0.18 | feature `prometheus` |
//! | `axum` 0.8, `rayon` 1, `serde` 1 | the features of these names |
//!
//! # How a stalled poll is found
//!
//! One thread of the crate, the sentinel, reads what every thread publishes of its polls. It wakes when a poll is about
//! to exceed its budget, and sleeps while nothing is in flight. For a poll over its budget, it asks the operating system
//! what the thread does: its processor time, its wait for a processor, and its system call. Only the time that is
//! certainly the code's own is charged. A poll that is late because its thread was not scheduled ([`Cause::Starved`]), or
//! because the process was stopped ([`Cause::Suspended`]), is counted and not reported. The counters are
//! `shotclock_slow_polls_total{cause}` and `shotclock_reports_suppressed_total{reason}`; the reason tells a busy host from
//! the container's CPU limit.
//!
//! For the stack, the sentinel signals the thread (see [`Stacks`]). The signal handler copies the stack and returns, and
//! the sentinel unwinds the copy. This works in a release build without frame pointers. [`Watchdog::capabilities`] says
//! what is available where the program runs.
//!
//! A guarded runtime is seen by tokio's counters of each worker: a worker that is awake with unchanged counters may be
//! stuck ([`Watchdog::guard`] says how far that goes). With `--cfg tokio_unstable`, [`Watchdog::guard_builder`] watches
//! every task under the place where it was spawned.
//!
//! # Limitations
//!
//! - Cause and stack are known on Linux; stacks on x86-64, and on aarch64 by the same code, untested. Elsewhere polls are
//!   timed and reported too, while they are stalled, with [`Cause::Unknown`].
//! - There is no stack of a thread that blocks the signal. There is none if the signal has another handler;
//!   [`WatchdogBuilder::stack_signal`] selects another signal. A thread that is not scheduled does not answer either;
//!   the sentinel asks again several times.
//! - There is only a part of a stack for a thread in a system call that a signal would make fail. There is a whole one if
//!   std or `parking_lot` made the call ([`Stacks::Auto`]). There is only a part of a stack of more than 256 KiB, inside
//!   foreign code without unwind tables, and on a switched stack.
//! - A stripped program has addresses instead of names, and no std that could be recognized. Then a thread in
//!   `thread::sleep` is not signalled either. Inlined functions have names only with debug information.
//! - Attribution uses lower bounds. On a very busy host, an overrun may be shorter than the run-queue wait around it. It
//!   then counts as starved, even if the code had a part in it. A poll of less than a millisecond is not attributed at all.
//! - A suspension of less than 5 ms is not noticed.
//! - In the child of a fork (without an `exec` after it), polls are timed and counted, and nothing else: the threads that
//!   scan and report are the parent's. [`WatchdogBuilder::build`] fails there: build the watchdog after the process has
//!   become a daemon.
//! - Nested polls are distinguished to a depth of 15 watches. A deeper poll counts in its own histogram, and its time is
//!   charged to the outer one.
//!
//! # Security
//!
//! Nothing listens and nothing is written unless the program asks for it. The default reporter logs through `tracing`,
//! and `prometheus::install` binds the address that it gets. Use a loopback address, or one that only trusted clients
//! reach: neither `/metrics` nor the page authenticates a client. A client can hold neither the listener's thread nor its
//! memory. A connection serves one request of at most 16 KiB. The request must arrive within 10 seconds, and the client must
//! read the response within 30. At most 16 connections are open at a time.
//!
//! Reports contain nothing of the data that a program works on, such as the content of a request. A stack is copied
//! whole, but only the addresses of its functions leave the copy, which the next capture overwrites. A core dump may
//! contain the copy, as it contains the stack itself. Reports contain:
//!
//! | what | where it comes from | how to leave it out |
//! |---|---|---|
//! | names of watches, lanes, runtimes, tasks and threads | the program: do not build a name from a request | other names |
//! | names of functions, source files and lines, and addresses without names (which reveal where the program was loaded) | the stack of a stalled thread | [`Stacks::Never`] |
//! | the path of a file or FIFO, or the number of a socket or pipe, that a thread waits on | `/proc/self/fd` | [`WatchdogBuilder::without_paths`] |
//! | the length of a sleep, the system call that a thread waits in | `/proc/self/task` | – |
//! | the source location where a future was watched | the compiler | – |
//! | the span around a poll, with its fields | the program's `tracing` subscriber, if the default reporter logs | [`WatchdogBuilder::without_tracing`] |

#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    any(
        not(target_os = "linux"),
        not(any(target_arch = "x86_64", target_arch = "aarch64")),
        not(feature = "stacks"),
        shotclock_loom
    ),
    allow(
        dead_code,
        reason = "without support by the operating system, much of the diagnosis has no caller"
    )
)]

mod allow_blocking;
mod append_table;
mod attribution;
mod background_thread;
mod catch_panic;
mod cgroup;
mod clock;
mod coarse_clock;
mod containment;
pub mod coop;
mod counters;
mod dispatch;
mod error;
mod flight_record;
#[cfg(all(
    any(test, fuzzing),
    not(any(shotclock_loom, miri)),
    target_os = "linux",
    target_arch = "x86_64",
    feature = "page",
    feature = "prometheus",
    feature = "stacks",
    feature = "testing"
))]
#[doc(hidden)]
pub mod fuzzing;
mod histogram;
mod liveness;
#[cfg(all(test, shotclock_loom))]
mod models;
pub mod offload;
mod overrun;
#[cfg(feature = "page")]
pub mod page;
mod pending_durations;
mod poll_timer;
mod prober;
mod process_state;
mod procfs;
#[cfg(feature = "prometheus")]
pub mod prometheus;
mod publish;
mod rate_limit;
pub mod report;
mod runtime;
mod sentinel;
#[cfg(feature = "serde")]
mod serialize;
mod slice_ticker;
mod slot;
mod stack;
pub mod stats;
mod stolen_time;
mod suspension;
mod sync;
mod sys;
#[cfg(all(feature = "systemd", target_os = "linux"))]
pub mod systemd;
#[cfg(feature = "testing")]
pub mod testing;
mod text_table;
mod ticked_poll;
#[cfg(feature = "tower")]
pub mod tower;
mod watch;
mod watchdog;
mod watched;

pub use allow_blocking::{AllowBlockingGuard, allow_blocking};
pub use coop::{YieldExt, yield_after, yield_every};
pub use error::Error;
pub use offload::{Lane, OffloadError, OffloadExt, offload};
pub use report::{Cause, Phase, Reporter, SlowPoll, StuckWorker};
pub use sentinel::{Capabilities, Capability};
pub use stats::{Health, Snapshot, Status, WatchStats};
#[cfg(feature = "tower")]
pub use tower::WatchLayer;
pub use watch::{Stacks, Timing, Watch};
pub use watchdog::{Escalation, Guard, GuardHooks, Watchdog, WatchdogBuilder, guard};
pub use watched::{Entered, WatchExt, Watched};

/// The examples of the README run as well.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests;

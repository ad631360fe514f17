//! A shot clock for cooperative multitasking.
//!
//! Async tasks share their threads by choice: between two `.await`s a task holds its worker, and
//! nobody takes it away. One task that computes or blocks there makes every other one late.
//! `shotclock` times each such possession (a *poll*), says *while it lasts* which one is too long, in
//! which line and why, and gives long work easy ways to pass the ball.
//!
//! - **Guard**: [`guard`] in the first line of `main` has every worker of the runtime looked at, with
//!   nothing wrapped; [`Watchdog::guard`] does it for any runtime.
//! - **Watch**: [`WatchExt::watched`] wraps a future or stream; [`Watch::stats`] and
//!   [`Watchdog::snapshot`] tell what was counted, [`Watchdog::health`] what is stuck now.
//! - **Report**: a poll over its budget is a [`SlowPoll`], told while it is still stuck and once
//!   more when it has ended, to reporters on threads of their own; the default one logs it through
//!   `tracing`. It has the [`Cause`], the [`Stack`] of the thread, and a hint at what to do instead.
//! - **Metrics**: counters and gauges through the `metrics` facade, and with the feature
//!   `prometheus` a `/metrics` that a stuck runtime still answers.
//! - **Look**: [`Watchdog::culprits`] tells which functions held the workers most; with the feature `page`
//!   all of it is on one page, which a stuck runtime cannot keep from being shown either.
//! - **Escalate**: [`Builder::escalate`] does something about what stays stuck;
//!   [`allow_blocking`] declares an exception.
//! - **Cooperate**: [`yield_every`] and [`yield_after`] give the worker back from a long loop, by count
//!   and by time; [`YieldExt`] does it for streams, [`iter`] for iterators.
//! - **Offload**: [`offload`] runs a closure on a bounded number of other threads; a [`Lane`] has a
//!   limit, a bounded queue, cancellation and threads of your choice, and
//!   [`OffloadExt::offloaded`] polls a whole future there.
//! - **Assert**: with the feature `testing`, `assert_poll_budget!` fails a test in which a poll takes
//!   too long by its own doing, on a busy machine too; `testing::audit` tells all of a future's polls.
//! - **Contain**: [`Watch::contained`] hands the worker's other tasks over before a poll that is
//!   expected to be slow.
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
//! | `axum` | no | the page as a router for axum |
//! | `page` | no | the module `page`: what a watchdog knows on one HTML page and as JSON; a flight record for Perfetto |
//! | `rayon` | no | lanes on a rayon thread pool |
//! | `serde` | no | `Serialize` for reports, statistics, culprits and health |
//! | `testing` | no | the module `testing`: assertions on poll budgets, audits, a recorder, a mocked clock |
//! | `tower` | no | `WatchLayer` for services; with `testing`, audits of them |
//! | `systemd` | no | the module `systemd`: a heartbeat that stops while a poll is stuck (Linux) |
//! | `prometheus` | no | the module `prometheus`: one text with all histograms, and a listener on its own thread |
//!
//! # How a stuck poll is seen
//!
//! One thread of the crate's own, the sentinel, reads what every thread publishes of its polls. It
//! wakes where a poll is about to pass its budget, and sleeps when nothing is in flight. Of a poll
//! that is over its budget it asks the operating system what the thread does: its processor time, how
//! long it waited for a processor, the system call that it waits in. What is certain to be the code's
//! own time is held against the budget. A poll that is late only because its thread was not run
//! ([`Cause::Starved`]), or the process was stopped ([`Cause::Suspended`]), is counted
//! (`shotclock_slow_polls_total{cause}`, `shotclock_reports_suppressed_total{reason}`, where the reason
//! tells a busy host from the container's CPU limit) and not reported.
//!
//! For the stack, the stuck thread gets a signal (see [`Stacks`]); its handler copies the stack and
//! returns, and the copy is unwound elsewhere. It works in a release build without frame pointers.
//! [`Watchdog::capabilities`] says what of all this works where the program runs.
//!
//! A guarded runtime is seen by the counters that tokio keeps of each of its workers: one that is awake
//! and whose counters stand still is stuck ([`Watchdog::guard`] says how far that goes). With
//! `--cfg tokio_unstable`, [`Watchdog::guard_builder`] watches every task under the place where it was
//! spawned.
//!
//! # Limitations
//!
//! - Cause and stack are known on Linux; stacks on x86-64, and on aarch64 by the same code, untested.
//!   Elsewhere polls are timed and told as well, while they are stuck too, with [`Cause::Unknown`].
//! - No stack: of a thread that has the signal masked, or a process in which the signal has another
//!   handler ([`Builder::stack_signal`] chooses another signal). A thread that is not run does not
//!   answer either; it is asked again a number of times.
//! - Part of a stack: of a thread that waits in a call which a signal would make fail, unless std or
//!   `parking_lot` made the call ([`Stacks::Auto`]); of a stack of more than 256 KiB; inside foreign
//!   code without unwind tables; on a stack that was switched, as far as it is mapped.
//! - A stripped program has addresses instead of names, and no std that could be known: then a thread
//!   in `thread::sleep` is not signalled either. Inlined functions have names only with debug
//!   information.
//! - Whose fault a poll was is decided by lower bounds. On a host that is too busy, an overrun that is
//!   shorter than the waiting around it is counted as starved though the code may have had a part in
//!   it. A poll of less than a millisecond is not judged at all.
//! - A suspension of less than 5 ms is not noticed.
//! - In the child of a fork (without an `exec` after it) polls are timed and counted, and nothing else: the
//!   threads that look and report are the parent's. [`Builder::build`] fails there: build the watchdog
//!   after the process has become a daemon.
//! - Polls are told apart to a depth of 15 watches inside one another; what is nested deeper counts
//!   in its own histogram, while its time and its blame are the outer one's.
//!
//! # Security
//!
//! Nothing listens and nothing is written unless the program asks for it: the default reporter logs
//! through `tracing`, and `prometheus::install` binds the address that it is
//! given. Give it a loopback address, or one that only those reach who run the service: neither
//! `/metrics` nor the page asks who is there. A client can hold neither the listener's thread nor its
//! memory: a connection is for one request of at most 16 KiB, which must come within 10 seconds and be
//! read within 30, and 16 are open at a time.
//!
//! Of what a program works on, such as the content of a request, nothing is told: a stack is copied
//! whole, but only the addresses of its functions leave the copy, which the next capture writes over. A
//! core dump may hold it, as it holds the stack itself. What is told:
//!
//! | what | where it comes from | how to leave it out |
//! |---|---|---|
//! | names of watches, lanes, runtimes, tasks and threads | the program: a name that is made of a request tells of it | other names |
//! | names of functions, source files and lines, addresses where there are no names (which tell where the program was loaded) | a stuck thread's stack | [`Stacks::Never`] |
//! | the path of the file or FIFO, or the number of the socket or pipe, that is waited for | `/proc/self/fd` | [`Builder::without_paths`] |
//! | for how long a thread sleeps, which system call it waits in | `/proc/self/task` | – |
//! | the place in the source where a future was watched | the compiler | – |
//! | the span around a poll, with its fields | the program's `tracing` subscriber, if the default reporter logs | [`Builder::without_tracing`] |

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
        reason = "without stacks, much of the code that analyses threads has no caller"
    )
)]

mod allow;
mod append_table;
mod attribution;
mod catch_panic;
mod cause;
mod cgroup;
mod clock;
mod coarse_clock;
mod containment;
mod counters;
mod error;
mod flight_record;
#[cfg(all(
    any(test, fuzzing),
    not(any(shotclock_loom, miri)),
    target_os = "linux",
    target_arch = "x86_64",
    feature = "page",
    feature = "prometheus",
    feature = "testing"
))]
#[doc(hidden)]
pub mod fuzzing;
mod histogram;
mod liveness;
mod offload;
mod overrun;
mod pace;
#[cfg(feature = "page")]
pub mod page;
mod pending_durations;
mod poll_timer;
mod prober;
mod procfs;
#[cfg(feature = "prometheus")]
pub mod prometheus;
mod publish;
mod pulse;
mod rate_limit;
mod report;
mod runtime;
mod sentinel;
#[cfg(feature = "serde")]
mod serialize;
mod service_thread;
mod slot;
mod stack;
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

pub use allow::{Allowed, allow_blocking};
pub use cause::{Cause, Split, Syscall};
pub use error::Error;
pub use offload::{
    Cancel, Lane, LaneBuilder, LaneStats, OffloadError, OffloadExt, Offloaded, PanicPayload,
    offload,
};
pub use pace::{
    Count, Iter, Pace, Paced, Rule, Slice, Tick, YieldExt, YieldNow, iter, yield_after, yield_every,
};
pub use report::{Culprit, Culprits, Path, Phase, Reporter, SlowPoll, StuckWorker};
pub use runtime::{Impact, StuckKind};
pub use sentinel::{Capabilities, Capability};
pub use slot::{Allowance, Kind, OtherThread, ThreadInfo};
pub use stack::{Frame, Stack};
#[cfg(feature = "tower")]
pub use tower::WatchLayer;
pub use watch::{Health, Snapshot, Stacks, Status, Timing, Watch, WatchStats};
pub use watchdog::{Builder, Escalation, Guard, GuardHooks, Watchdog, default_watchdog, guard};
pub use watched::{Entered, WatchExt, Watched};

/// The examples of the README run as well.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests;

//! What a stall does to the rest of its runtime.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Guarded, all};

/// How a guarded runtime stood when something in it was stuck. Part of every report of a poll or a
/// worker of a runtime that is guarded ([`Watchdog::guard`](crate::Watchdog::guard)).
///
/// `Display` prints it in a few words.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Impact {
    /// The name under which the runtime is guarded.
    pub runtime: Arc<str>,
    /// How many tasks waited in the queue that its workers share. Those in the queues of single
    /// workers are not among them.
    pub queued: usize,
    /// How many workers it has.
    pub workers: usize,
    /// How many of those were parked, and so free to do something.
    pub parked: usize,
    /// How long a task waited last that was woken from outside; or for how long one has been waiting,
    /// if that is longer.
    pub lag: Duration,
}

impl Impact {
    /// `None` if the runtime has ended.
    pub(crate) fn on(guarded: &Guarded) -> Option<Self> {
        let workers = guarded.workers()?;
        Some(Self {
            runtime: Arc::clone(&guarded.name),
            queued: workers.queued(),
            workers: workers.count(),
            parked: workers.parked(),
            lag: guarded.lag.current(guarded.clock()),
        })
    }
}

/// The impact on the runtime that the thread of a slot works for. If it is not known to be a worker of
/// one that is guarded (the thread in `block_on` is none), and only one is, on that.
pub(crate) fn of(slot: Option<usize>) -> Option<Impact> {
    let all = all();
    let has = |guarded: &&Arc<Guarded>| {
        let workers = guarded.workers();
        workers
            .zip(slot)
            .is_some_and(|(workers, slot)| workers.has(slot))
    };
    match (all.iter().find(has), &all[..]) {
        (Some(guarded), _) => Impact::on(guarded),
        (None, [only]) => Impact::on(only),
        (None, _) => None,
    }
}

impl fmt::Display for Impact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            runtime,
            queued,
            workers,
            parked,
            lag,
        } = self;
        write!(
            f,
            "runtime {runtime:?}: {parked} of {workers} workers parked, {queued} tasks queued, lag {lag:.1?}"
        )
    }
}

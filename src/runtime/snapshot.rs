//! Reads the state of a guarded runtime for a report.

use std::sync::Arc;

use super::{Guarded, all};
use crate::report::RuntimeSnapshot;

/// Reads the state of a runtime. `None` if it has ended.
pub(crate) fn snapshot(guarded: &Guarded) -> Option<RuntimeSnapshot> {
    let workers = guarded.workers()?;
    Some(RuntimeSnapshot {
        runtime: Arc::clone(&guarded.name),
        queued: workers.queued(),
        workers: workers.count(),
        parked: workers.parked(),
        lag: guarded.lag.current(guarded.clock()),
    })
}

/// Reads the state of the runtime that the thread of a slot works for.
///
/// The thread in `block_on` is no worker, so a thread may belong to no known runtime. Then this takes the guarded
/// runtime, if there is only one.
pub(crate) fn snapshot_of(slot: Option<usize>) -> Option<RuntimeSnapshot> {
    let all = all();
    let has_slot = |guarded: &&Arc<Guarded>| {
        let workers = guarded.workers();
        workers
            .zip(slot)
            .is_some_and(|(workers, slot)| workers.has(slot))
    };
    match (all.iter().find(has_slot), &all[..]) {
        (Some(guarded), _) => snapshot(guarded),
        (None, [only]) => snapshot(only),
        (None, _) => None,
    }
}

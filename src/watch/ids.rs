//! Maps the id of a watch to its name and watchdog.
//!
//! A slot holds ids and no pointers, so a reader of a slot finds the watch here, without a lock. Entries are never
//! removed, because a late reader may still hold the id. Each watch of each watchdog of the process costs one entry.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};

use super::WatchdogInner;
use crate::append_table::AppendTable;

struct WatchEntry {
    name: Arc<str>,
    watchdog: OnceLock<Weak<WatchdogInner>>,
}

static ENTRIES: AppendTable<WatchEntry> = AppendTable::new();
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

fn get(id: u64) -> Option<&'static WatchEntry> {
    ENTRIES.get(usize::try_from(id).ok()?)
}

/// Allocates an id for a watch of that name.
pub(super) fn allocate(name: &Arc<str>) -> u64 {
    let id = NEXT_ID.fetch_add(1, Relaxed);
    if let Ok(index) = usize::try_from(id) {
        let entry = || WatchEntry {
            name: Arc::clone(name),
            watchdog: OnceLock::new(),
        };
        ENTRIES.get_or_init(index, entry);
    }
    id
}

/// Records the watchdog of a watch. A watchdog that is recorded already stays.
pub(super) fn set_watchdog(id: u64, watchdog: &Arc<WatchdogInner>) {
    if let Some(entry) = get(id) {
        entry.watchdog.get_or_init(|| Arc::downgrade(watchdog));
    }
}

/// Returns the name of a watch of this process, even if the watch has ended.
pub(crate) fn name_of(id: u64) -> Option<Arc<str>> {
    get(id).map(|entry| Arc::clone(&entry.name))
}

/// Returns the watchdog of a watch, if it still exists. While a poll of the watch is in flight, it does.
pub(crate) fn watchdog_of(id: u64) -> Option<Arc<WatchdogInner>> {
    get(id)?.watchdog.get()?.upgrade()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_an_ended_watch_stays_known() {
        let id = allocate(&"short-lived".into());
        assert_eq!(name_of(id).as_deref(), Some("short-lived"));
        assert_eq!(name_of(u64::MAX), None);
        assert!(watchdog_of(id).is_none());
    }
}

//! Watches by id, so that a reader of a slot (which holds ids, and no pointers) knows them without
//! a lock.
//!
//! They are never taken out: an id must stay good for the latest of readers. It costs an entry for
//! each watch of each watchdog that the process ever builds.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};

use super::Home;
use crate::table::Table;

struct Known {
    name: Arc<str>,
    home: OnceLock<Weak<Home>>,
}

static KNOWN: Table<Known> = Table::new();
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

fn get(id: u64) -> Option<&'static Known> {
    KNOWN.get(usize::try_from(id).ok()?)
}

/// A new id for a watch of that name.
pub(super) fn introduce(name: &Arc<str>) -> u64 {
    let id = NEXT_ID.fetch_add(1, Relaxed);
    if let Ok(index) = usize::try_from(id) {
        let known = || Known {
            name: Arc::clone(name),
            home: OnceLock::new(),
        };
        KNOWN.get_or_init(index, known);
    }
    id
}

/// Notes to whom a watch belongs. What is known already stays.
pub(super) fn settle(id: u64, home: &Arc<Home>) {
    if let Some(known) = get(id) {
        known.home.get_or_init(|| Arc::downgrade(home));
    }
}

/// The name of a watch of this process, whether it still exists or not.
pub(crate) fn name_of(id: u64) -> Option<Arc<str>> {
    get(id).map(|known| Arc::clone(&known.name))
}

/// The home of a watch, if there still is one: while a poll is in flight, there is.
pub(crate) fn home_of(id: u64) -> Option<Arc<Home>> {
    get(id)?.home.get()?.upgrade()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_outlives_its_watch() {
        let id = introduce(&"short-lived".into());
        assert_eq!(name_of(id).as_deref(), Some("short-lived"));
        assert_eq!(name_of(u64::MAX), None);
        assert!(home_of(id).is_none());
    }
}

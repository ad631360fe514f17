//! Stalls in watched polls. A report matches the stall of its watch and task: a task has one stall at a time.

use std::collections::{BTreeMap, HashMap};

use crate::wire::Id;

/// The stalls of one watch.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::driver) struct Site {
    pub(in crate::driver) announced: u64,
    pub(in crate::driver) told: u64,
    /// The reports of polls that still ran.
    pub(in crate::driver) told_early: u64,
}

#[derive(Debug, Default)]
pub(in crate::driver) struct Polls {
    pub(in crate::driver) sites: BTreeMap<String, Site>,
    /// Announced stalls without a report so far.
    untold: HashMap<(String, Id), u64>,
}

impl Polls {
    pub(super) fn announced(&mut self, watch: &str, task: &Id) {
        self.sites.entry(watch.to_owned()).or_default().announced += 1;
        *self
            .untold
            .entry((watch.to_owned(), task.clone()))
            .or_default() += 1;
    }

    /// Records the report of a finished poll, and whether it was reported while it ran. Returns false without an
    /// announcement.
    pub(super) fn reported(&mut self, watch: &str, task: &Id, early: bool) -> bool {
        let key = (watch.to_owned(), task.clone());
        let Some(untold) = self.untold.get_mut(&key).filter(|untold| **untold > 0) else {
            return false;
        };
        *untold -= 1;
        let site = self.sites.entry(key.0).or_default();
        site.told += 1;
        site.told_early += u64::from(early);
        true
    }

    pub(super) fn rest(&mut self) {
        self.untold.clear();
    }
}

//! Stuck workers. A report matches the stall that held its thread at that time.

use crate::wire::{Id, Stall};

/// The longest delay between a report and its handling, in milliseconds.
const LATE: u64 = 250;

/// A thread that a stall held. Times are in milliseconds.
#[derive(Debug)]
struct Held {
    stall: Stall,
    over: Option<u64>,
    told: u64,
}

#[derive(Debug, Default)]
pub(in crate::driver) struct Workers {
    held: Vec<Held>,
    /// Stalls outside of every watch.
    pub(in crate::driver) announced: u64,
    pub(in crate::driver) told: u64,
    /// Threads that several watched stalls held, one after the other.
    pub(in crate::driver) chains: u64,
    /// Stalls without a report.
    pub(in crate::driver) faults: Vec<String>,
}

impl Workers {
    pub(super) fn announced(&mut self, stall: Stall) {
        self.announced += u64::from(stall.watch.is_none());
        self.held.push(Held {
            stall,
            over: None,
            told: 0,
        });
    }

    pub(super) fn over(&mut self, thread: &Id, at: u64) {
        let mut held = self.held.iter_mut().rev();
        if let Some(last) = held.find(|held| held.stall.thread == *thread) {
            last.over = Some(at);
        }
    }

    /// Records the report of a stuck thread. Returns false if no stall was announced for that time.
    pub(super) fn reported(&mut self, thread: &Id, since: u64, at: u64) -> bool {
        let is_held = |held: &&mut Held| {
            let is_over = held.over.is_some_and(|over| over + LATE < since);
            // A report of a worker with an unknown thread names only the runtime.
            let is_there = thread.is_empty() || held.stall.thread == *thread;
            is_there && held.stall.at <= at && !is_over
        };
        let mut held: Vec<_> = self.held.iter_mut().rev().filter(is_held).collect();
        let is_unwatched = |held: &&mut &mut Held| held.stall.watch.is_none();
        match held.iter_mut().find(is_unwatched) {
            Some(unwatched) => {
                unwatched.told += 1;
                self.told += u64::from(unwatched.told == 1);
            }
            None => self.chains += u64::from(!held.is_empty()),
        }
        !held.is_empty()
    }

    pub(super) fn rest(&mut self) {
        let unwatched = self
            .held
            .drain(..)
            .filter(|held| held.stall.watch.is_none());
        let faults = unwatched.filter(|held| held.told != 1);
        self.faults.extend(faults.map(|held| format!("{held:?}")));
    }
}

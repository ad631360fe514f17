//! The counts of the clients.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// Numbers by name.
#[derive(Debug, Default)]
pub(super) struct Numbers(RefCell<BTreeMap<String, u64>>);

impl Numbers {
    pub(super) fn add(&self, name: &str, number: u64) {
        *self.0.borrow_mut().entry(name.to_owned()).or_default() += number;
    }

    pub(super) fn of(&self, name: &str) -> u64 {
        self.0.borrow().get(name).copied().unwrap_or_default()
    }

    pub(super) fn sum(&self) -> u64 {
        self.0.borrow().values().sum()
    }
}

#[derive(Debug, Default)]
pub(super) struct ClientCounts {
    /// Answers by route.
    pub(super) answers: Numbers,
    /// Requested polls by watch.
    pub(super) known: Numbers,
    /// Polls that panicked, by watch.
    pub(super) panics: Numbers,
    /// Requests that the client cancelled.
    pub(super) left: Cell<u64>,
    /// Unexpected answers and errors.
    pub(super) failures: RefCell<Vec<String>>,
}

impl ClientCounts {
    /// Returns the number of requests.
    pub(super) fn requests(&self) -> u64 {
        self.answers.sum() + self.panics.sum() + self.left.get()
    }

    pub(super) fn fail(&self, path: &str, why: &str) {
        self.failures.borrow_mut().push(format!("{path}: {why}"));
    }
}

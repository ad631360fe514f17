//! Places at which a model may leave something out on purpose, to show that it then fails.
//!
//! A model that cannot fail proves nothing. So every fence, ordering and second look that a model is there
//! to defend has a name, and [`Model::fails_without`](super::model::Model::fails_without) runs the model
//! once more without it. In every other build the names are nothing: each function here is what it does
//! where nothing is broken.

use std::sync::atomic::Ordering;

use super::AtomicU64;

/// Whether the calling thread runs a model that is to fail, without what is named.
#[cfg(not(shotclock_loom))]
#[inline(always)]
pub(crate) const fn broken(_: &str) -> bool {
    false
}

#[cfg(shotclock_loom)]
pub(crate) fn broken(name: &str) -> bool {
    BROKEN.get() == Some(name)
}

/// The ordering; none at all in a model that is to fail.
#[inline(always)]
pub(crate) fn unless_broken(name: &str, ordering: Ordering) -> Ordering {
    if broken(name) {
        Ordering::Relaxed
    } else {
        ordering
    }
}

/// A fence, which a model that is to fail leaves out.
#[inline(always)]
pub(crate) fn fence(ordering: Ordering, name: &str) {
    if !broken(name) {
        atomic::fence(ordering);
    }
}

/// Puts `to` in the place of `from`, if that is there: in one step, or in two in a model that is to fail.
#[inline(always)]
pub(crate) fn exchange(name: &str, cell: &AtomicU64, from: u64, to: u64, order: Ordering) -> bool {
    if broken(name) {
        let is_there = cell.load(Ordering::SeqCst) == from;
        if is_there {
            cell.store(to, Ordering::SeqCst);
        }
        return is_there;
    }
    let swapped = cell.compare_exchange(from, to, order, Ordering::Relaxed);
    swapped.is_ok()
}

#[cfg(not(shotclock_loom))]
use std::sync::atomic;

#[cfg(shotclock_loom)]
use loom::sync::atomic;

#[cfg(shotclock_loom)]
std::thread_local! {
    /// All threads of a model run on the one thread that checks it.
    pub(super) static BROKEN: std::cell::Cell<Option<&'static str>> = const { std::cell::Cell::new(None) };
}

//! Which slot is whose.

use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;

use super::{DEPTH_MASK, Owner, SEQ_STEP, Slot, ThreadDiagnostics};
use crate::sync::{ModelledGuard, ModelledLock, broken};

/// Every slot of the process, and those that no thread owns at present.
struct Slots {
    all: Vec<&'static Slot>,
    free: Vec<&'static Slot>,
}

#[cfg(not(shotclock_loom))]
static SLOTS: ModelledLock<Slots> = ModelledLock::new(Slots::NONE);

#[cfg(shotclock_loom)]
loom::lazy_static! {
    static ref SLOTS: ModelledLock<Slots> = ModelledLock::new(Slots::NONE);
}

impl Default for Slots {
    fn default() -> Self {
        Self::NONE
    }
}

impl Slots {
    const NONE: Self = Self {
        all: Vec::new(),
        free: Vec::new(),
    };
}

thread_local! {
    /// This thread's slot. Without a destructor, so that reading it is one load, and possible
    /// until the very end of the thread.
    static CURRENT: Cell<Option<&'static Slot>> = const { Cell::new(None) };
    /// Gives the slot back when the thread ends.
    static LEASE: Lease = const { Lease };
}

struct Lease;

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(slot) = CURRENT.take() {
            give_back(slot);
        }
    }
}

/// What a thread does last with its slot.
pub(super) fn give_back(slot: &'static Slot) {
    if broken("return-order") {
        lock().free.push(slot);
    }
    // A guard that was forgotten may have left frames behind; the next owner starts clean.
    let next = match broken("return-serial") {
        false => (slot.state.load(Relaxed) & !DEPTH_MASK) + SEQ_STEP,
        true => 0,
    };
    slot.state.store(next, Relaxed);
    slot.set_mute(false);
    if !broken("return-generation") {
        slot.generation.fetch_add(1, Relaxed);
    }
    // Waits for whoever holds on to this thread: it must not end under their hands.
    if !broken("return-diagnostics") {
        *slot.diagnostics() = ThreadDiagnostics::default();
    }
    // The lock orders this thread's last writes before the next owner's first.
    if !broken("return-order") {
        lock().free.push(slot);
    }
}

/// Nothing panics while it holds this lock; if it ever did, the two lists would still be whole.
fn lock() -> ModelledGuard<'static, Slots> {
    SLOTS.lock()
}

thread_local! {
    /// While this thread forks.
    static HELD: Cell<Option<ModelledGuard<'static, Slots>>> = const { Cell::new(None) };
}

/// Keeps every other thread from the list of slots, so that it is free in the child of a fork.
pub(crate) fn hold() {
    let _ = HELD.try_with(|held| held.set(Some(lock())));
}

/// See [`hold`].
pub(crate) fn release() {
    let _ = HELD.try_with(|held| held.set(None));
}

/// The calling thread's slot.
///
/// `None` only while the thread's last thread-locals are destroyed, after the slot went back.
#[inline]
pub(crate) fn current() -> Option<&'static Slot> {
    CURRENT.get().or_else(acquire)
}

#[cold]
#[inline(never)]
fn acquire() -> Option<&'static Slot> {
    LEASE.try_with(|_| ()).ok()?;
    let slots = lock();
    // In the child of a fork that was not noticed: its polls are counted without a slot.
    if slots.is_stand_in() {
        return None;
    }
    let slot = take_of(slots);
    slot.diagnostics().owner = Some(Owner::current());
    CURRENT.set(Some(slot));
    Some(slot)
}

/// A slot that nobody has.
#[cfg(all(test, shotclock_loom))]
pub(super) fn take() -> &'static Slot {
    take_of(lock())
}

fn take_of(mut slots: ModelledGuard<'_, Slots>) -> &'static Slot {
    slots.free.pop().unwrap_or_else(|| {
        let slot: &'static Slot = Box::leak(Box::new(Slot::new(slots.all.len())));
        slots.all.push(slot);
        slot
    })
}

/// Whether the calling thread still owns the slot: it goes back before the last thread-locals are
/// destroyed, and one of those may hold a guard.
pub(crate) fn is_current(slot: &Slot) -> bool {
    CURRENT
        .get()
        .is_some_and(|current| std::ptr::eq(current, slot))
}

/// A slot while one thread has it, in a number that is never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ThreadKey(u64);

impl ThreadKey {
    /// That of the calling thread.
    pub(crate) fn of_current_thread() -> Option<Self> {
        current().map(Self::of)
    }

    /// That of the thread which has the slot, and calls this.
    pub(super) fn of(slot: &Slot) -> Self {
        let generation = slot.generation.load(Relaxed) & GENERATION_MASK;
        Self((slot.index as u64 + 1) << GENERATION_BITS | generation)
    }

    pub(crate) fn from_number(number: u64) -> Option<Self> {
        (number != 0).then_some(Self(number))
    }

    pub(crate) fn number(self) -> u64 {
        self.0
    }

    /// The number of the slot.
    pub(crate) fn index(self) -> usize {
        ((self.0 >> GENERATION_BITS) - 1) as usize
    }

    /// The slot, unless the thread has ended.
    pub(crate) fn slot(self) -> Option<&'static Slot> {
        let slot = lock().all.get(self.index()).copied()?;
        (slot.generation.load(Relaxed) & GENERATION_MASK == self.0 & GENERATION_MASK)
            .then_some(slot)
    }
}

/// A slot has another tenant 4 thousand million times before a stale seat is taken for a good one.
const GENERATION_BITS: u32 = 32;
const GENERATION_MASK: u64 = (1 << GENERATION_BITS) - 1;

/// Every slot there is, in use or not.
pub(crate) fn all() -> Vec<&'static Slot> {
    lock().all.clone()
}

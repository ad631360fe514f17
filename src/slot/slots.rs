//! Leases slots to threads.

use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;

use super::{DEPTH_MASK, SEQ_STEP, Slot, SlotOwner, ThreadDiagnostics};
use crate::sync::{ModelledGuard, ModelledLock};

/// All slots of the process, and those without an owner.
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
    /// The slot of this thread. Without a destructor, so a read is one load, and works until the end of the thread.
    static CURRENT: Cell<Option<&'static Slot>> = const { Cell::new(None) };
    /// Returns the slot when the thread ends.
    static LEASE: Lease = const { Lease };
}

struct Lease;

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(slot) = CURRENT.take() {
            return_slot(slot);
        }
    }
}

/// Returns a slot at the end of its thread.
pub(crate) fn return_slot(slot: &'static Slot) {
    clear(slot);
    // Last: the lock orders this thread's last writes before the first ones of the next owner.
    make_available(slot);
}

/// Removes what belongs to this thread from its slot.
pub(crate) fn clear(slot: &Slot) {
    // A forgotten guard may have left frames. The next owner starts without any.
    let next = (slot.state.load(Relaxed) & !DEPTH_MASK) + SEQ_STEP;
    slot.state.store(next, Relaxed); // model: return-state
    slot.set_reporting(false);
    slot.generation.fetch_add(1, Relaxed); // model: return-generation
    // Waits for a thread that holds the diagnostics, because this thread must not end while it does.
    *slot.diagnostics.lock() = ThreadDiagnostics::default(); // model: return-diagnostics
}

/// Lets another thread take the slot.
pub(crate) fn make_available(slot: &'static Slot) {
    lock().free.push(slot);
}

fn lock() -> ModelledGuard<'static, Slots> {
    SLOTS.lock()
}

thread_local! {
    /// The lock of the list, while this thread forks.
    static HELD: Cell<Option<ModelledGuard<'static, Slots>>> = const { Cell::new(None) };
}

/// Locks the list of slots before a fork, so that no other thread holds it in the child.
pub(crate) fn hold() {
    let _ = HELD.try_with(|held| held.set(Some(lock())));
}

/// Unlocks the list of slots after a fork.
pub(crate) fn release() {
    let _ = HELD.try_with(|held| held.set(None));
}

/// Returns the slot of the calling thread.
///
/// `None` only while the last thread-locals of the thread are destroyed, after it returned its slot.
#[inline]
pub(crate) fn current() -> Option<&'static Slot> {
    CURRENT.get().or_else(acquire)
}

#[cold]
#[inline(never)]
fn acquire() -> Option<&'static Slot> {
    LEASE.try_with(|_| ()).ok()?;
    let slots = lock();
    // The child of an undetected fork counts its polls without a slot.
    if slots.is_stand_in() {
        return None;
    }
    let slot = take_of(slots);
    slot.diagnostics().owner = Some(SlotOwner::current());
    CURRENT.set(Some(slot));
    Some(slot)
}

/// Leases a free slot.
#[cfg(all(test, shotclock_loom))]
pub(crate) fn take() -> &'static Slot {
    take_of(lock())
}

fn take_of(mut slots: ModelledGuard<'_, Slots>) -> &'static Slot {
    slots.free.pop().unwrap_or_else(|| {
        let slot: &'static Slot = Box::leak(Box::new(Slot::new(slots.all.len())));
        slots.all.push(slot);
        slot
    })
}

/// Returns whether the calling thread still owns the slot.
///
/// The thread returns its slot before its last thread-locals are destroyed, and one of those may hold a guard.
pub(crate) fn is_current(slot: &Slot) -> bool {
    CURRENT
        .get()
        .is_some_and(|current| std::ptr::eq(current, slot))
}

/// Identifies a slot and the generation of its thread, in a number that is never 0. Stale once the thread has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ThreadKey(u64);

impl ThreadKey {
    /// Returns the key of the calling thread.
    pub(crate) fn of_current_thread() -> Option<Self> {
        current().map(Self::of)
    }

    /// Returns the key of a slot's owner, which must be the calling thread.
    pub(crate) fn of(slot: &Slot) -> Self {
        let generation = slot.generation.load(Relaxed) & GENERATION_MASK;
        Self((slot.index as u64 + 1) << GENERATION_BITS | generation)
    }

    pub(crate) fn from_number(number: u64) -> Option<Self> {
        (number != 0).then_some(Self(number))
    }

    pub(crate) fn number(self) -> u64 {
        self.0
    }

    /// Returns the index of the slot.
    pub(crate) fn index(self) -> usize {
        ((self.0 >> GENERATION_BITS) - 1) as usize
    }

    /// Returns the slot, unless the thread has ended.
    pub(crate) fn slot(self) -> Option<&'static Slot> {
        let slot = lock().all.get(self.index()).copied()?;
        (slot.generation.load(Relaxed) & GENERATION_MASK == self.0 & GENERATION_MASK)
            .then_some(slot)
    }
}

/// A slot changes its owner 2^32 times before a stale key is taken for a current one.
const GENERATION_BITS: u32 = 32;
const GENERATION_MASK: u64 = (1 << GENERATION_BITS) - 1;

/// Returns all slots, in use or not.
pub(crate) fn all() -> Vec<&'static Slot> {
    lock().all.clone()
}

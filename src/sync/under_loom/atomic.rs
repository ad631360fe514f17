//! Loom's atomics and its fence. A fault can weaken a load, a store, an addition, a compare-and-swap or a fence.

use std::ops::Deref;
use std::sync::Mutex;
use std::sync::atomic::Ordering::{self, Relaxed, SeqCst};

use loom::sync::atomic;
use loom::thread::{self, ThreadId};

use super::fault::{Fault, fault_here, repeats_loads};

pub(crate) type AtomicU64 = Modelled<atomic::AtomicU64>;
pub(crate) type AtomicBool = Modelled<atomic::AtomicBool>;

/// An atomic of loom's. The operations that no fault weakens are those of `A`.
#[derive(Debug, Default)]
pub(crate) struct Modelled<A: Atomic> {
    atomic: A,
    /// What each thread loaded last, in a run that repeats a load.
    loaded: Mutex<Vec<(ThreadId, A::Value)>>,
}

/// What the atomics of loom have in common.
pub(crate) trait Atomic {
    type Value: Copy;

    fn value_of(number: u64) -> Self::Value;
    fn load_from(&self, order: Ordering) -> Self::Value;
    fn store_to(&self, value: Self::Value, order: Ordering);
}

impl Atomic for atomic::AtomicU64 {
    type Value = u64;

    fn value_of(number: u64) -> u64 {
        number
    }

    fn load_from(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    fn store_to(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }
}

impl Atomic for atomic::AtomicBool {
    type Value = bool;

    fn value_of(number: u64) -> bool {
        number != 0
    }

    fn load_from(&self, order: Ordering) -> bool {
        self.load(order)
    }

    fn store_to(&self, value: bool, order: Ordering) {
        self.store(value, order);
    }
}

impl<A: Atomic> Modelled<A> {
    fn over(atomic: A) -> Self {
        Self {
            atomic,
            loaded: Mutex::default(),
        }
    }

    #[track_caller]
    pub(crate) fn load(&self, order: Ordering) -> A::Value {
        let value = match fault_here() {
            None => self.atomic.load_from(order),
            Some(Fault::Relaxed) => self.atomic.load_from(relaxed(order)),
            Some(Fault::Forged(number)) => {
                self.atomic.load_from(order);
                A::value_of(number)
            }
            Some(Fault::Stale) => self.loaded_before().expect("a load before this one"),
            Some(fault) => fault.does_not_fit("a load"),
        };
        if repeats_loads() {
            self.remember(value);
        }
        value
    }

    #[track_caller]
    pub(crate) fn store(&self, value: A::Value, order: Ordering) {
        match fault_here() {
            None => self.atomic.store_to(value, order),
            Some(Fault::Relaxed) => self.atomic.store_to(value, relaxed(order)),
            Some(Fault::Skipped) => {}
            Some(Fault::Forged(number)) => self.atomic.store_to(A::value_of(number), order),
            Some(fault) => fault.does_not_fit("a store"),
        }
    }

    fn loaded_before(&self) -> Option<A::Value> {
        let loaded = self.loaded.lock().expect("nothing panics under it");
        let of_this_thread = loaded.iter().find(|(id, _)| *id == thread::current().id());
        of_this_thread.map(|(_, value)| *value)
    }

    fn remember(&self, value: A::Value) {
        let this_thread = thread::current().id();
        let mut loaded = self.loaded.lock().expect("nothing panics under it");
        loaded.retain(|(id, _)| *id != this_thread);
        loaded.push((this_thread, value));
    }
}

impl AtomicBool {
    pub(crate) fn new(value: bool) -> Self {
        Self::over(atomic::AtomicBool::new(value))
    }
}

impl AtomicU64 {
    pub(crate) fn new(value: u64) -> Self {
        Self::over(atomic::AtomicU64::new(value))
    }

    #[track_caller]
    pub(crate) fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        match fault_here() {
            None => self.atomic.fetch_add(value, order),
            Some(Fault::Skipped) => self.atomic.load(Relaxed),
            Some(fault) => fault.does_not_fit("an addition"),
        }
    }

    #[track_caller]
    pub(crate) fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        let success = match fault_here() {
            None => success,
            Some(Fault::Relaxed) => relaxed(success),
            Some(Fault::Split) => return self.exchange_in_two_steps(current, new),
            Some(fault) => fault.does_not_fit("a compare-and-swap"),
        };
        self.atomic.compare_exchange(current, new, success, failure)
    }

    fn exchange_in_two_steps(&self, current: u64, new: u64) -> Result<u64, u64> {
        let found = self.atomic.load(SeqCst);
        if found != current {
            return Err(found);
        }
        self.atomic.store(new, SeqCst);
        Ok(found)
    }
}

impl<A: Atomic> Deref for Modelled<A> {
    type Target = A;

    fn deref(&self) -> &A {
        &self.atomic
    }
}

#[track_caller]
pub(crate) fn fence(order: Ordering) {
    match fault_here() {
        None => atomic::fence(order),
        Some(Fault::Skipped) => {}
        Some(fault) => fault.does_not_fit("a fence"),
    }
}

fn relaxed(order: Ordering) -> Ordering {
    assert_ne!(order, Relaxed, "the operation has no ordering to lose");
    Relaxed
}

//! The one operation that a model weakens on purpose, to show that it then fails.
//!
//! A model that cannot fail proves nothing. The harness in `crate::models` plants a fault at a line of the
//! production code and runs the model again. In such a run the operation at that line asks for its fault.

use std::cell::RefCell;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How an operation is weakened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// An atomic operation has no ordering.
    Relaxed,
    /// The operation does not take place. A queue looks empty. A lock neither excludes nor waits: the caller sees
    /// a default value, and what it writes is lost.
    Skipped,
    /// A compare-and-swap is a load and a store.
    Split,
    /// A load returns the value that the thread loaded from there before.
    Stale,
    /// A load returns, or a store writes, this value.
    Forged(u64),
}

impl Fault {
    /// Ends a run whose fault means nothing for the operation at its line.
    pub(super) fn does_not_fit(self, operation: &str) -> ! {
        panic!("{operation} cannot have the fault {self:?}")
    }
}

/// A fault, and the line of the operation that has it.
#[derive(Clone)]
pub(crate) struct PlantedFault {
    fault: Fault,
    /// As in [`Location::file`].
    file: String,
    line: u32,
    has_run: Arc<AtomicBool>,
}

impl PlantedFault {
    pub(crate) fn new(fault: Fault, file: String, line: u32) -> Self {
        Self {
            fault,
            file,
            line,
            has_run: Arc::default(),
        }
    }

    /// Whether an operation ran at that line.
    pub(crate) fn has_run(&self) -> bool {
        self.has_run.load(Ordering::Relaxed)
    }
}

impl fmt::Display for PlantedFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {}:{}", self.fault, self.file, self.line)
    }
}

std::thread_local! {
    /// Loom runs all threads of a model on the thread that checks it.
    static PLANTED: RefCell<Option<PlantedFault>> = const { RefCell::new(None) };
}

/// Plants the fault of the models that the calling thread checks.
pub(crate) fn plant(fault: Option<PlantedFault>) {
    PLANTED.set(fault);
}

/// The fault of the operation that calls this, by the line of the operation's own caller.
#[track_caller]
pub(super) fn fault_here() -> Option<Fault> {
    let here = Location::caller();
    PLANTED.with_borrow(|planted| {
        let planted = planted.as_ref()?;
        let is_here = planted.line == here.line() && planted.file == here.file();
        planted.has_run.fetch_or(is_here, Ordering::Relaxed);
        is_here.then_some(planted.fault)
    })
}

/// Whether a run repeats loads, and so has to remember them.
pub(super) fn repeats_loads() -> bool {
    PLANTED.with_borrow(|planted| planted.as_ref().is_some_and(|p| p.fault == Fault::Stale))
}

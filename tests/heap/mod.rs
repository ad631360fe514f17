//! Counts allocated memory by a global allocator.

#![allow(dead_code, reason = "each program takes what it needs")]
#![allow(unsafe_code, reason = "an allocator cannot be written without it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The bytes that are allocated and not freed. Resident memory would also contain what the allocator keeps.
pub(crate) fn live() -> usize {
    LIVE.load(SeqCst)
}

/// The largest value since the last measurement.
pub(crate) fn peak(f: impl FnOnce()) -> usize {
    PEAK.store(live(), SeqCst);
    f();
    PEAK.load(SeqCst)
}

/// Returns the largest growth during `work`.
pub(crate) fn growth(f: impl FnOnce()) -> usize {
    let before = live();
    peak(f).saturating_sub(before)
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Counting;

fn more(bytes: usize) {
    let live = LIVE.fetch_add(bytes, SeqCst) + bytes;
    PEAK.fetch_max(live, SeqCst);
}

// SAFETY: it forwards to the system's allocator and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        // SAFETY: as for the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), SeqCst);
        // SAFETY: as for the caller.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        more(size);
        LIVE.fetch_sub(layout.size(), SeqCst);
        // SAFETY: as for the caller.
        unsafe { System.realloc(block, layout, size) }
    }
}

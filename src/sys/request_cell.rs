//! Hands a request to one thread and its answer back. The thread may answer late, or never.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::sync::AtomicU64;

/// The state of one request and of its answer, which have one place each.
///
/// # Invariants
///
/// 1. `state` packs the requested thread (upper 32 bits) and the phase (lower 32 bits).
/// 2. Either the thread leaves `REQUESTED` (to `ANSWERING`) or the requester does (to `IDLE`). A compare-and-swap
///    decides. It compares the thread too, so a late thread cannot accept the request of another one.
/// 3. The place of the answer belongs to the thread in `ANSWERING`, and to the requester in every other phase. So the
///    requester sends no new request before a late answer has arrived.
pub(crate) struct RequestCell {
    state: AtomicU64,
}

pub(crate) const IDLE: u64 = 0;
const REQUESTED: u64 = 1;
const ANSWERING: u64 = 2;
const ANSWERED: u64 = 3;

const PHASE_MASK: u64 = u32::MAX as u64;

fn packed(thread: u32, phase: u64) -> u64 {
    u64::from(thread) << 32 | phase
}

impl RequestCell {
    #[cfg(not(shotclock_loom))]
    pub(crate) const fn new() -> Self {
        Self {
            state: AtomicU64::new(IDLE),
        }
    }

    #[cfg(shotclock_loom)]
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicU64::new(IDLE),
        }
    }

    /// Requests an answer of a thread, after `prepare` has stored the request.
    ///
    /// Returns false, and calls no `prepare`, until a late answer has arrived. Requester only.
    pub(crate) fn request(&self, thread: u32, prepare: impl FnOnce()) -> bool {
        let phase = self.state.load(Acquire) & PHASE_MASK; // model: request-look
        let free = phase == IDLE || phase == ANSWERED;
        if free {
            prepare();
            // Release: the thread that accepts sees the stored request.
            self.state.store(packed(thread, REQUESTED), Release); // model: request-publish
        }
        free
    }

    /// Accepts the request. Returns false if there is none for this thread, or not any more. Thread only.
    pub(crate) fn accept(&self, thread: u32) -> bool {
        let (from, to) = (packed(thread, REQUESTED), packed(thread, ANSWERING));
        let accepted = self.state.compare_exchange(from, to, AcqRel, Relaxed); // model: accept
        accepted.is_ok()
    }

    /// Publishes the answer, which is in its place. Thread only, after [`accept`](Self::accept).
    pub(crate) fn deliver(&self, thread: u32) {
        self.state.store(packed(thread, ANSWERED), Release); // model: deliver
    }

    /// Returns whether the answer has arrived. Requester only.
    pub(crate) fn is_answered(&self) -> bool {
        self.state.load(Acquire) & PHASE_MASK == ANSWERED // model: answered
    }

    /// Withdraws the request. Requester only.
    pub(crate) fn withdraw(&self, thread: u32) {
        // If the thread has accepted the request, its late answer stays unread.
        let from = packed(thread, REQUESTED);
        let _ = self.state.compare_exchange(from, IDLE, Relaxed, Relaxed); // model: withdraw
    }
}

#[cfg(all(test, not(shotclock_loom)))]
mod tests {
    use super::*;

    #[test]
    fn accept_of_a_withdrawn_request_is_refused() {
        let cell = RequestCell::new();
        assert!(cell.request(1, || ()));
        cell.withdraw(1);
        assert!(cell.request(2, || ()));
        assert!(!cell.accept(1));
        assert!(cell.accept(2));
        cell.deliver(2);
        assert!(cell.is_answered());
    }

    #[test]
    fn request_before_a_late_answer_is_refused() {
        let cell = RequestCell::new();
        assert!(cell.request(1, || ()) && cell.accept(1));
        cell.withdraw(1);
        assert!(!cell.request(2, || ()) && !cell.is_answered());
        cell.deliver(1);
        assert!(cell.request(2, || ()));
    }
}

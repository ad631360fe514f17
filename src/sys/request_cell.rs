//! Hands a request to one thread and its answer back. The thread may answer late, or never.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::sync::{AtomicU64, broken, exchange, unless_broken};

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

const IDLE: u64 = 0;
const REQUESTED: u64 = 1;
const ANSWERING: u64 = 2;
const ANSWERED: u64 = 3;

const PHASE_MASK: u64 = u32::MAX as u64;

fn packed(thread: u32, phase: u64) -> u64 {
    let thread = if broken("errand-name") { 0 } else { thread };
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
        let seen = unless_broken("ask-acquire", Acquire);
        let phase = self.state.load(seen) & PHASE_MASK;
        let free = phase == IDLE || phase == ANSWERED || broken("ask-busy");
        if free {
            prepare();
            // Release: the thread that accepts sees the stored request.
            let publish = unless_broken("ask-release", Release);
            self.state.store(packed(thread, REQUESTED), publish);
        }
        free
    }

    /// Accepts the request. Returns false if there is none for this thread, or not any more. Thread only.
    pub(crate) fn accept(&self, thread: u32) -> bool {
        let (requested, answering) = (packed(thread, REQUESTED), packed(thread, ANSWERING));
        let both = unless_broken("accept-order", AcqRel);
        exchange("accept-swap", &self.state, requested, answering, both)
    }

    /// Publishes the answer, which is in its place. Thread only, after [`accept`](Self::accept).
    pub(crate) fn deliver(&self, thread: u32) {
        let publish = unless_broken("deliver-release", Release);
        self.state.store(packed(thread, ANSWERED), publish);
    }

    /// Returns whether the answer has arrived. Requester only.
    pub(crate) fn is_answered(&self) -> bool {
        let seen = unless_broken("answered-acquire", Acquire);
        self.state.load(seen) & PHASE_MASK == ANSWERED
    }

    /// Withdraws the request. Requester only.
    pub(crate) fn withdraw(&self, thread: u32) {
        // If the thread has accepted the request, its late answer stays unread.
        let requested = packed(thread, REQUESTED);
        exchange("withdraw-swap", &self.state, requested, IDLE, Relaxed);
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

/// `RUSTFLAGS="--cfg shotclock_loom" cargo test --release --lib models`
#[cfg(all(test, shotclock_loom))]
mod models {
    use super::*;
    use crate::sync::model::Model;
    use loom::cell::UnsafeCell;
    use loom::thread;
    use std::sync::Arc;

    /// The cell with the places of the request and the answer, which loom checks.
    struct Exchange {
        cell: RequestCell,
        request: UnsafeCell<u32>,
        answer: UnsafeCell<(u32, u32)>,
    }

    // SAFETY: loom checks that no two threads access the places at once.
    unsafe impl Sync for Exchange {}
    // SAFETY: as above.
    unsafe impl Send for Exchange {}

    impl Exchange {
        fn request(&self, thread: u32) -> bool {
            self.cell.request(thread, || {
                // SAFETY: loom checks it.
                self.request
                    .with_mut(|request| unsafe { *request = thread });
            })
        }

        /// Answers, unless it is too late, with the thread's own number and the stored request.
        fn on_signal(&self, thread: u32) {
            if self.cell.accept(thread) {
                // SAFETY: loom checks it.
                let request = self.request.with(|request| unsafe { *request });
                // SAFETY: as above.
                self.answer
                    .with_mut(|answer| unsafe { *answer = (thread, request) });
                self.cell.deliver(thread);
            }
        }

        fn answer(&self) -> Option<(u32, u32)> {
            // SAFETY: loom checks it.
            let answer = || self.answer.with(|answer| unsafe { *answer });
            self.cell.is_answered().then(answer)
        }
    }

    /// An answer is whole, and is that of the requested thread to its request. No two threads access a place at once. The
    /// requester requests one thread and then another without a wait, and either thread may be late.
    #[test]
    fn answer_is_whole_and_of_the_requested_thread() {
        let model = Model::new(|| {
            let exchange = Arc::new(Exchange {
                cell: RequestCell::new(),
                request: UnsafeCell::new(0),
                answer: UnsafeCell::new((0, 0)),
            });
            let mut threads = Vec::new();
            for thread in [1, 2] {
                // The thread runs already: it learns what to do from the request alone.
                let shared = Arc::clone(&exchange);
                threads.push(thread::spawn(move || shared.on_signal(thread)));
                let is_requested = exchange.request(thread);
                if !is_requested {
                    continue;
                }
                match exchange.answer() {
                    Some(answer) => assert_eq!(answer, (thread, thread), "somebody else's answer"),
                    None => exchange.cell.withdraw(thread),
                }
            }
            threads.into_iter().for_each(|t| t.join().unwrap());
        });
        const TOGETHER: &str = "Causality violation";
        model
            .holds()
            .fails_without("ask-busy", TOGETHER)
            .fails_without("ask-acquire", TOGETHER)
            .fails_without("ask-release", TOGETHER)
            .fails_without("errand-name", "somebody else's answer")
            .fails_without("accept-order", TOGETHER)
            .fails_without("accept-swap", TOGETHER)
            .fails_without("deliver-release", TOGETHER)
            .fails_without("answered-acquire", TOGETHER)
            .fails_without("withdraw-swap", TOGETHER);
    }
}

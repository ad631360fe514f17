//! The hand-over between one who asks a thread for something and the thread, which may answer late or
//! never.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::sync::{AtomicU64, broken, exchange, unless_broken};

/// One request at a time, and its answer, for which there is one place.
///
/// # Invariants
///
/// 1. `state` packs the thread that is asked (upper 32 bits) and the phase (lower 32).
/// 2. From `ASKED` either the thread goes on (to `ANSWERING`) or the asker (back to `IDLE`): the
///    compare-and-swap decides, and it names the thread, so a late one cannot take up what another
///    is asked for.
/// 3. The place of the answer belongs to the thread in `ANSWERING` and to the asker in every other
///    phase. So nothing is asked anew before a late answer has come.
pub(crate) struct RequestCell {
    state: AtomicU64,
}

const IDLE: u64 = 0;
const ASKED: u64 = 1;
const ANSWERING: u64 = 2;
const ANSWERED: u64 = 3;

const PHASE: u64 = u32::MAX as u64;

fn of(thread: u32, phase: u64) -> u64 {
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

    /// Asks a thread, after `prepare` has put down what it has to know. False, and nothing prepared,
    /// while a late answer is still awaited. Asker only.
    pub(crate) fn ask(&self, thread: u32, prepare: impl FnOnce()) -> bool {
        let seen = unless_broken("ask-acquire", Acquire);
        let phase = self.state.load(seen) & PHASE;
        let free = phase == IDLE || phase == ANSWERED || broken("ask-busy");
        if free {
            prepare();
            // Release: what was prepared is seen by whoever accepts.
            let publish = unless_broken("ask-release", Release);
            self.state.store(of(thread, ASKED), publish);
        }
        free
    }

    /// Takes the request up; false if this thread is not asked, or not any more. Thread only.
    pub(crate) fn accept(&self, thread: u32) -> bool {
        let (asked, answering) = (of(thread, ASKED), of(thread, ANSWERING));
        let both = unless_broken("accept-order", AcqRel);
        exchange("accept-swap", &self.state, asked, answering, both)
    }

    /// The answer is in its place. Thread only, after [`accept`](Self::accept).
    pub(crate) fn deliver(&self, thread: u32) {
        let publish = unless_broken("deliver-release", Release);
        self.state.store(of(thread, ANSWERED), publish);
    }

    /// Whether the answer is there. Asker only.
    pub(crate) fn is_answered(&self) -> bool {
        let seen = unless_broken("answered-acquire", Acquire);
        self.state.load(seen) & PHASE == ANSWERED
    }

    /// Gives up waiting. Asker only.
    pub(crate) fn withdraw(&self, thread: u32) {
        // Where the thread has taken it up, its answer comes late, and nobody reads it.
        let asked = of(thread, ASKED);
        exchange("withdraw-swap", &self.state, asked, IDLE, Relaxed);
    }
}

#[cfg(all(test, not(shotclock_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_late_thread_cannot_take_up_what_another_is_asked() {
        let errand = RequestCell::new();
        assert!(errand.ask(1, || ()));
        errand.withdraw(1);
        assert!(errand.ask(2, || ()));
        assert!(!errand.accept(1));
        assert!(errand.accept(2));
        errand.deliver(2);
        assert!(errand.is_answered());
    }

    #[test]
    fn nothing_is_asked_before_a_late_answer_has_come() {
        let errand = RequestCell::new();
        assert!(errand.ask(1, || ()) && errand.accept(1));
        errand.withdraw(1);
        assert!(!errand.ask(2, || ()) && !errand.is_answered());
        errand.deliver(1);
        assert!(errand.ask(2, || ()));
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

    /// The errand with the places of its request and its answer, which loom watches.
    struct Desk {
        errand: RequestCell,
        request: UnsafeCell<u32>,
        answer: UnsafeCell<(u32, u32)>,
    }

    // SAFETY: of a test, in which loom itself checks that nobody accesses the two together.
    unsafe impl Sync for Desk {}
    // SAFETY: as above.
    unsafe impl Send for Desk {}

    impl Desk {
        fn ask(&self, thread: u32) -> bool {
            self.errand.ask(thread, || {
                // SAFETY: loom checks it.
                self.request
                    .with_mut(|request| unsafe { *request = thread });
            })
        }

        /// Who is asked answers, if it is not too late: with its own number, and what it was asked.
        fn on_signal(&self, thread: u32) {
            if self.errand.accept(thread) {
                // SAFETY: loom checks it.
                let request = self.request.with(|request| unsafe { *request });
                // SAFETY: as above.
                self.answer
                    .with_mut(|answer| unsafe { *answer = (thread, request) });
                self.errand.deliver(thread);
            }
        }

        fn answer(&self) -> Option<(u32, u32)> {
            // SAFETY: loom checks it.
            let answer = || self.answer.with(|answer| unsafe { *answer });
            self.errand.is_answered().then(answer)
        }
    }

    /// An answer is that of the thread which was asked, to what it was asked, and whole; and the places of
    /// both are never accessed by two at once. The asker does not wait long: first it asks one thread,
    /// then another, and either may be late.
    #[test]
    fn an_answer_is_of_who_was_asked_and_is_whole() {
        let model = Model::new(|| {
            let desk = Arc::new(Desk {
                errand: RequestCell::new(),
                request: UnsafeCell::new(0),
                answer: UnsafeCell::new((0, 0)),
            });
            let mut threads = Vec::new();
            for thread in [1, 2] {
                // It is there already: nothing but the request makes known what it is asked.
                let asked = Arc::clone(&desk);
                threads.push(thread::spawn(move || asked.on_signal(thread)));
                let is_asked = desk.ask(thread);
                if !is_asked {
                    continue;
                }
                match desk.answer() {
                    Some(answer) => assert_eq!(answer, (thread, thread), "somebody else's answer"),
                    None => desk.errand.withdraw(thread),
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

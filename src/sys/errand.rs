//! The hand-over between one who asks a thread for something and the thread, which may answer late or
//! never.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::sync::AtomicU64;

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
pub(crate) struct Errand {
    state: AtomicU64,
}

const IDLE: u64 = 0;
const ASKED: u64 = 1;
const ANSWERING: u64 = 2;
const ANSWERED: u64 = 3;

const PHASE: u64 = u32::MAX as u64;

fn of(thread: u32, phase: u64) -> u64 {
    u64::from(thread) << 32 | phase
}

impl Errand {
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
        let phase = self.state.load(Acquire) & PHASE;
        let free = phase == IDLE || phase == ANSWERED;
        if free {
            prepare();
            // Release: what was prepared is seen by whoever accepts.
            self.state.store(of(thread, ASKED), Release);
        }
        free
    }

    /// Takes the request up; false if this thread is not asked, or not any more. Thread only.
    pub(crate) fn accept(&self, thread: u32) -> bool {
        let (asked, answering) = (of(thread, ASKED), of(thread, ANSWERING));
        let swapped = self
            .state
            .compare_exchange(asked, answering, AcqRel, Relaxed);
        swapped.is_ok()
    }

    /// The answer is in its place. Thread only, after [`accept`](Self::accept).
    pub(crate) fn deliver(&self, thread: u32) {
        self.state.store(of(thread, ANSWERED), Release);
    }

    /// Whether the answer is there. Asker only.
    pub(crate) fn is_answered(&self) -> bool {
        self.state.load(Acquire) & PHASE == ANSWERED
    }

    /// Gives up waiting. Asker only.
    pub(crate) fn withdraw(&self, thread: u32) {
        // Where the thread has taken it up, its answer comes late, and nobody reads it.
        let _ = self
            .state
            .compare_exchange(of(thread, ASKED), IDLE, Relaxed, Relaxed);
    }
}

#[cfg(all(test, not(shotclock_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_late_thread_cannot_take_up_what_another_is_asked() {
        let errand = Errand::new();
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
        let errand = Errand::new();
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
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    /// The errand with the place of its answer, which loom watches.
    struct Asked {
        errand: Errand,
        answer: UnsafeCell<u32>,
    }

    // SAFETY: of a test, in which loom itself checks that nobody accesses the answer together.
    unsafe impl Sync for Asked {}
    // SAFETY: as above.
    unsafe impl Send for Asked {}

    /// One that is asked, gives its answer if it is not too late, and exits.
    fn asked(shared: &Arc<Asked>, thread: u32) -> thread::JoinHandle<()> {
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            if shared.errand.accept(thread) {
                // SAFETY: loom checks it.
                shared.answer.with_mut(|answer| unsafe { *answer = thread });
                shared.errand.deliver(thread);
            }
        })
    }

    /// An asker that does not wait long: first one thread, then another, and either may be late.
    #[test]
    fn an_answer_is_of_who_was_asked_and_is_whole() {
        loom::model(|| {
            let shared = Arc::new(Asked {
                errand: Errand::new(),
                answer: UnsafeCell::new(0),
            });
            let mut threads = Vec::new();
            for thread in [1, 2] {
                let is_asked = shared.errand.ask(thread, || {
                    // SAFETY: loom checks it.
                    shared.answer.with_mut(|answer| unsafe { *answer = 0 });
                });
                threads.push(asked(&shared, thread));
                if is_asked && shared.errand.is_answered() {
                    // SAFETY: loom checks it.
                    let answer = shared.answer.with(|answer| unsafe { *answer });
                    assert_eq!(answer, thread);
                } else if is_asked {
                    shared.errand.withdraw(thread);
                }
            }
            threads.into_iter().for_each(|t| t.join().unwrap());
        });
    }
}

//! The thread that reads files for the sentinel: how to unwind the program and its libraries.
//!
//! A file may be on a disk that is slow, and the list of what is mapped takes a lock of the address space.
//! The sentinel waits for neither. Until a library that was loaded later has been read, a stack that leads
//! through it ends there.

use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use super::self_test;
use super::unwind::{Changes, Known, Unwinder};
use crate::background_thread;
use crate::catch_panic::catch_panic;
use crate::sys::Unblocked;

const NAME: &str = "shotclock-load";

/// How often the list is read again at most: code that was made at runtime is in no module, ever.
const AGAIN: Duration = Duration::from_secs(1);

/// What the sentinel has of it.
pub(super) struct UnwindLoader {
    unwinder: Option<Unwinder>,
    loading: Receiver<Unwinder>,
    asks: Sender<Vec<Known>>,
    answers: Receiver<Changes>,
    asked_at: Option<Instant>,
    is_awaited: bool,
}

impl UnwindLoader {
    /// Starts the thread, which tries out its unwinder, hands it over, and then waits for questions.
    pub(super) fn start(
        test_capture: impl FnOnce(&mut Unwinder) -> Result<(), String> + Send + 'static,
    ) -> Self {
        let (loaded, loading) = mpsc::channel();
        let (asks, questions) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        let load = move || {
            let mut unwinder = Unwinder::new();
            let outcome = catch_panic(|| test_capture(&mut unwinder));
            let _ = loaded.send(unwinder);
            self_test::tried_out(outcome);
            for known in questions {
                let changes = catch_panic(|| Changes::since(known)).unwrap_or_default();
                let _ = answer.send(changes);
            }
        };
        // The thread asks itself for its stack.
        if let Err(error) = background_thread::spawn_with_signals(NAME, Unblocked::Captures, load) {
            self_test::tried_out(Some(Err(error.to_string())));
        }
        Self {
            unwinder: None,
            loading,
            asks,
            answers,
            asked_at: None,
            is_awaited: false,
        }
    }

    /// The unwinder, once it is loaded, with all that was read so far.
    pub(super) fn unwinder(&mut self) -> Option<&mut Unwinder> {
        self.is_loading();
        let unwinder = self.unwinder.as_mut()?;
        if let Ok(changes) = self.answers.try_recv() {
            unwinder.apply(changes);
            self.is_awaited = false;
        }
        Some(unwinder)
    }

    /// The same for who looks only at what is known.
    pub(super) fn loaded(&self) -> Option<&Unwinder> {
        self.unwinder.as_ref()
    }

    /// Whether there is none yet, and will be.
    pub(super) fn is_loading(&mut self) -> bool {
        if self.unwinder.is_some() {
            return false;
        }
        match self.loading.try_recv() {
            Ok(unwinder) => self.unwinder = Some(unwinder),
            Err(TryRecvError::Empty) => return true,
            Err(TryRecvError::Disconnected) => {}
        }
        false
    }

    /// Has the list read again if a stack led through a module that is not known. Says whether that is
    /// awaited.
    pub(super) fn load_missed(&mut self) -> bool {
        let is_recent = self.asked_at.is_some_and(|at| at.elapsed() < AGAIN);
        if let Some(unwinder) = &mut self.unwinder {
            if unwinder.has_missed() && !self.is_awaited && !is_recent {
                self.asked_at = Some(Instant::now());
                self.is_awaited = self.asks.send(unwinder.known()).is_ok();
            }
        }
        self.is_awaited
    }
}

#[cfg(all(
    test,
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(miri)
))]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::sys::{Copied, Registers};

    fn unwind_at(unwinder: &mut Unwinder, ip: u64) {
        unwinder.unwind(&Copied {
            registers: Registers {
                ip,
                ..Registers::default()
            },
            from: 0,
            bytes: Vec::new(),
        });
    }

    /// The sentinel's own thread has nothing but channels to wait for, and does not wait for those.
    #[test]
    fn a_stack_in_a_module_that_is_not_known_has_the_files_read_on_the_other_thread() {
        let mut loader = UnwindLoader::start(|_| Ok(()));
        while loader.is_loading() {
            std::thread::yield_now();
        }
        let here = unwind_at as *const () as u64;
        let is_known = |unwinder: &Unwinder| unwinder.module(here).is_some();
        assert!(!is_known(loader.unwinder().unwrap()));
        assert!(!loader.load_missed(), "nothing was missed");
        unwind_at(loader.unwinder().unwrap(), here);
        assert!(loader.load_missed());
        // Which goes on while the one that asked does other things.
        while !is_known(loader.unwinder().unwrap()) {
            std::thread::yield_now();
        }
        assert!(!loader.load_missed(), "it is known");
    }
}

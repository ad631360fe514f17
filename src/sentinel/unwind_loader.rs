//! Reads the unwind tables of the program and its libraries, on a thread of its own.
//!
//! A file may be on a slow disk, and the list of mappings needs a lock of the address space. The sentinel waits for
//! neither. A stack through a library that was loaded later ends there, until the thread has read the library.

use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use super::self_test;
use super::unwind::{Changes, KnownModule, Unwinder};
use crate::background_thread;
use crate::catch_panic::catch_panic;
use crate::sys::Unblocked;

const NAME: &str = "shotclock-load";

/// The shortest time between two readings of the mappings. Code of a JIT compiler is never in a module, so a program may
/// ask without end.
const RELOAD_INTERVAL: Duration = Duration::from_secs(1);

/// A message between the sentinel and the thread. One type for both directions, because each type of a channel has its
/// own copy of std's code, which is 8,000 lines for the compiler.
enum LoaderMessage {
    /// To the sentinel, once.
    Loaded(Unwinder),
    /// To the thread, with the modules that the unwinder has.
    Request(Vec<KnownModule>),
    /// To the sentinel, after each request.
    Changed(Changes),
}

/// The sentinel's side of the thread.
pub(super) struct UnwindLoader {
    unwinder: Option<Unwinder>,
    requests: Sender<LoaderMessage>,
    answers: Receiver<LoaderMessage>,
    requested_at: Option<Instant>,
    is_pending: bool,
}

impl UnwindLoader {
    /// Starts the thread. It tests its unwinder, hands it over, and then serves requests.
    pub(super) fn start(
        test_capture: impl FnOnce(&mut Unwinder) -> Result<(), String> + Send + 'static,
    ) -> Self {
        let (requests, incoming) = mpsc::channel();
        let (outgoing, answers) = mpsc::channel();
        let load = move || {
            let mut unwinder = Unwinder::new();
            let outcome = catch_panic(|| test_capture(&mut unwinder));
            let _ = outgoing.send(LoaderMessage::Loaded(unwinder));
            self_test::record(outcome);
            for message in incoming {
                if let LoaderMessage::Request(known) = message {
                    let changes = catch_panic(|| Changes::since(known)).unwrap_or_default();
                    let _ = outgoing.send(LoaderMessage::Changed(changes));
                }
            }
        };
        // The thread captures its own stack.
        if let Err(error) = background_thread::spawn_with_signals(NAME, Unblocked::Captures, load) {
            self_test::record(Some(Err(error.to_string())));
        }
        Self {
            unwinder: None,
            requests,
            answers,
            requested_at: None,
            is_pending: false,
        }
    }

    /// Returns the unwinder, once it is loaded, with the changes that were read so far.
    pub(super) fn unwinder(&mut self) -> Option<&mut Unwinder> {
        while let Ok(answer) = self.answers.try_recv() {
            self.take(answer);
        }
        self.unwinder.as_mut()
    }

    fn take(&mut self, answer: LoaderMessage) {
        match answer {
            LoaderMessage::Loaded(unwinder) => self.unwinder = Some(unwinder),
            LoaderMessage::Changed(changes) => {
                if let Some(unwinder) = &mut self.unwinder {
                    unwinder.apply(changes);
                }
                self.is_pending = false;
            }
            LoaderMessage::Request(_) => {}
        }
    }

    /// Returns the unwinder, once it is loaded, without new changes.
    pub(super) fn loaded(&self) -> Option<&Unwinder> {
        self.unwinder.as_ref()
    }

    /// Returns whether the unwinder is still being loaded.
    pub(super) fn is_loading(&mut self) -> bool {
        if self.unwinder.is_some() {
            return false;
        }
        match self.answers.try_recv() {
            Ok(answer) => self.take(answer),
            Err(TryRecvError::Empty) => return true,
            Err(TryRecvError::Disconnected) => {}
        }
        false
    }

    /// Requests the changes if a stack led through an unknown module. Returns whether a request is pending.
    pub(super) fn load_missed(&mut self) -> bool {
        let is_recent = self
            .requested_at
            .is_some_and(|at| at.elapsed() < RELOAD_INTERVAL);
        if let Some(unwinder) = &mut self.unwinder
            && unwinder.has_missed()
            && !self.is_pending
            && !is_recent
        {
            self.requested_at = Some(Instant::now());
            self.is_pending = self
                .requests
                .send(LoaderMessage::Request(unwinder.known()))
                .is_ok();
        }
        self.is_pending
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

    /// The caller waits for nothing: the other thread reads the files.
    #[test]
    fn load_missed_with_an_unknown_module_loads_it_on_the_other_thread() {
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
        while !is_known(loader.unwinder().unwrap()) {
            std::thread::yield_now();
        }
        assert!(!loader.load_missed(), "it is known");
    }
}

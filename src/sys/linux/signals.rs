//! Blocks signals on the crate's threads.
//!
//! A new thread inherits the signal mask of its creator. The creator sets the mask before it starts the thread and
//! restores it afterwards. So the new thread never accepts a signal that it should block.

use super::CAPTURE_SIGNAL;
use crate::sys::Unblocked;

/// The kernel sends these to the thread that caused them. If they are blocked, it ends the process, and a handler of the
/// program does not run.
const FAULTS: [libc::c_int; 6] = [
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGSEGV,
    libc::SIGSYS,
    libc::SIGTRAP,
];

/// Calls `run` with all signals blocked on the calling thread, except for `unblocked`. Restores the mask afterwards, also
/// if `run` panics.
pub(crate) fn with_signals_blocked<T>(unblocked: Unblocked, run: impl FnOnce() -> T) -> T {
    let _restored = Blocked::new(unblocked);
    run()
}

/// Restores the signal mask of the calling thread on drop.
struct Blocked {
    before: Option<libc::sigset_t>,
}

impl Blocked {
    fn new(unblocked: Unblocked) -> Self {
        let mut mask = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `sigfillset` initialises the mask, and each number is that of a signal. `before` is read only if the
        // call has written it. The C library keeps its own signals out of the mask.
        let before = unsafe {
            libc::sigfillset(mask.as_mut_ptr());
            for signal in exceptions(unblocked) {
                libc::sigdelset(mask.as_mut_ptr(), signal);
            }
            // The sentinel starts the thread that tests captures, and blocks their signal itself. Other threads keep
            // what the program has blocked.
            let how = match unblocked {
                Unblocked::Captures => libc::SIG_SETMASK,
                Unblocked::Faults | Unblocked::CapturesAndProfile => libc::SIG_BLOCK,
            };
            let set = libc::pthread_sigmask(how, mask.as_ptr(), before.as_mut_ptr());
            (set == 0).then(|| before.assume_init())
        };
        Self { before }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // SAFETY: the mask is one that this thread had before.
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, std::ptr::null_mut()) };
        }
    }
}

fn exceptions(unblocked: Unblocked) -> impl Iterator<Item = libc::c_int> {
    let others: &[libc::c_int] = match unblocked {
        Unblocked::Faults => &[],
        Unblocked::Captures => &[CAPTURE_SIGNAL],
        Unblocked::CapturesAndProfile => &[CAPTURE_SIGNAL, libc::SIGPROF],
    };
    let chosen = match unblocked {
        Unblocked::Faults => 0,
        Unblocked::Captures | Unblocked::CapturesAndProfile => super::signal_of_captures(),
    };
    let chosen = (chosen != 0).then_some(chosen);
    FAULTS
        .into_iter()
        .chain(others.iter().copied())
        .chain(chosen)
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    fn is_blocked(signal: libc::c_int) -> bool {
        let mut mask = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: without a new mask the call only writes the present one, which is read after that.
        unsafe {
            assert_eq!(
                libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), mask.as_mut_ptr()),
                0
            );
            libc::sigismember(mask.as_ptr(), signal) == 1
        }
    }

    fn blocked_of(unblocked: Unblocked) -> Vec<libc::c_int> {
        let signals = (1..32).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal));
        with_signals_blocked(unblocked, || {
            signals.filter(|signal| is_blocked(*signal)).collect()
        })
    }

    #[test]
    fn with_signals_blocked_all_but_the_named_ones_are_blocked() {
        let captures = [libc::SIGURG];
        let code = [libc::SIGURG, libc::SIGPROF];
        for (unblocked, named) in [
            (Unblocked::Faults, &[][..]),
            (Unblocked::Captures, &captures),
            (Unblocked::CapturesAndProfile, &code),
        ] {
            let blocked = blocked_of(unblocked);
            let is_left_out = |signal: &libc::c_int| {
                named.contains(signal)
                    || FAULTS.contains(signal)
                    || [libc::SIGKILL, libc::SIGSTOP].contains(signal)
                    || *signal == super::super::signal_of_captures()
            };
            let expected: Vec<_> = (1..32)
                .filter(|signal| {
                    let by_choice = *signal == super::super::signal_of_captures();
                    !is_left_out(signal) || by_choice && unblocked == Unblocked::Faults
                })
                .collect();
            assert_eq!(blocked, expected, "{unblocked:?}");
        }
    }

    #[test]
    fn with_signals_blocked_restores_the_mask_after_a_panic() {
        let before = is_blocked(libc::SIGTERM);
        let caught = std::panic::catch_unwind(|| {
            with_signals_blocked(Unblocked::Faults, || {
                assert!(is_blocked(libc::SIGTERM));
                panic!("on purpose");
            })
        });
        assert!(caught.is_err());
        assert_eq!(is_blocked(libc::SIGTERM), before);
    }
}

//! Floor 0: runs code of others without letting its panics pass.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs code of others. Returns `None` if it panicked.
///
/// The panic hook has printed the message by then, so this function drops the payload. The drop is caught
/// as well, because a payload's destructor may panic.
pub(crate) fn catch_panic<T>(foreign: impl FnOnce() -> T) -> Option<T> {
    if cfg!(shotclock_loom) {
        // A loom model reports its failure by a panic, which must pass.
        return Some(foreign());
    }
    catch_unwind(AssertUnwindSafe(foreign))
        .map_err(discard)
        .ok()
}

fn discard(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        // The destructor of this payload may panic again, and so on. Leaking one box ends the chain.
        std::mem::forget(second);
    }
}

#[cfg(all(test, not(shotclock_loom)))]
mod tests {
    use super::catch_panic;

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            std::panic::panic_any(Bomb);
        }
    }

    #[test]
    fn catch_panic_of_a_payload_that_panics_returns_none() {
        assert_eq!(catch_panic(|| 1), Some(1));
        assert_eq!(catch_panic(|| std::panic::panic_any(Bomb)), None);
    }
}

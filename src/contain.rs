//! Floor 0: keeping other people's panics where they happened.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs code that is not ours; `None` if it panicked.
///
/// The panic hook has printed its message by then, so the payload says nothing new. It is dropped
/// with the same care, because a payload may panic as well.
pub(crate) fn contain<T>(foreign: impl FnOnce() -> T) -> Option<T> {
    if cfg!(shotclock_loom) {
        // A model fails by a panic.
        return Some(foreign());
    }
    catch_unwind(AssertUnwindSafe(foreign))
        .map_err(discard)
        .ok()
}

fn discard(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        // A payload whose destructor panics with a payload whose destructor … Leaking one box ends it.
        std::mem::forget(second);
    }
}

#[cfg(all(test, not(shotclock_loom)))]
mod tests {
    use super::contain;

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            std::panic::panic_any(Bomb);
        }
    }

    #[test]
    fn even_a_payload_that_panics_is_contained() {
        assert_eq!(contain(|| 1), Some(1));
        assert_eq!(contain(|| std::panic::panic_any(Bomb)), None);
    }
}

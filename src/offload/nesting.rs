//! For which lanes this thread works at present.
//!
//! A closure that offloads to its own lane and blocks until that is done would wait for the place
//! that it holds itself. So would one that blocks on another lane, whose closure blocks on the first.
//! Therefore a job remembers the lanes of the thread that it came from, and what is offloaded to one
//! of them from its own thread is run there and then.

use std::cell::RefCell;
use std::sync::Arc;

/// The lanes of a thread, innermost first.
#[derive(Clone, Default)]
pub(super) struct Lanes(Option<Arc<Link>>);

struct Link {
    lane: u64,
    outer: Lanes,
}

thread_local! {
    static HERE: RefCell<Lanes> = const { RefCell::new(Lanes(None)) };
}

impl Lanes {
    /// Those of this thread. None while its last thread-locals are destroyed.
    pub(super) fn here() -> Self {
        HERE.try_with(|here| here.borrow().clone())
            .unwrap_or_default()
    }

    pub(super) fn contains(&self, lane: u64) -> bool {
        let mut link = &self.0;
        while let Some(Link { lane: this, outer }) = link.as_deref() {
            if *this == lane {
                return true;
            }
            link = &outer.0;
        }
        false
    }

    /// Within the lane `lane`, which was called from these.
    pub(super) fn within<T>(self, lane: u64, work: impl FnOnce() -> T) -> T {
        let inner = Self(Some(Arc::new(Link { lane, outer: self })));
        inner.stand_in(work)
    }

    /// In none. For what does not block: its awaiting holds up nobody.
    pub(super) fn outside<T>(work: impl FnOnce() -> T) -> T {
        Self::default().stand_in(work)
    }

    fn stand_in<T>(self, work: impl FnOnce() -> T) -> T {
        struct Restore(Lanes);
        impl Drop for Restore {
            fn drop(&mut self) {
                let before = std::mem::take(&mut self.0);
                let _ = HERE.try_with(|here| here.replace(before));
            }
        }
        let before = HERE.try_with(|here| here.replace(self));
        let _restore = Restore(before.unwrap_or_default());
        work()
    }
}

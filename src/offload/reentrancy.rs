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

#[derive(Clone)]
struct Link {
    lane: u64,
    outer: Lanes,
}

thread_local! {
    /// The innermost link, which is shared only if something is offloaded from here.
    static HERE: RefCell<Option<Link>> = const { RefCell::new(None) };
}

impl Lanes {
    /// Those of this thread. None while its last thread-locals are destroyed.
    pub(super) fn here() -> Self {
        let link = HERE.try_with(|here| here.borrow().clone());
        Self(link.ok().flatten().map(Arc::new))
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
        stand_in(Some(Link { lane, outer: self }), work)
    }

    /// In none. For what does not block: its awaiting holds up nobody.
    pub(super) fn outside<T>(work: impl FnOnce() -> T) -> T {
        stand_in(None, work)
    }
}

fn stand_in<T>(link: Option<Link>, work: impl FnOnce() -> T) -> T {
    struct Restore(Option<Link>);
    impl Drop for Restore {
        fn drop(&mut self) {
            let before = self.0.take();
            let _ = HERE.try_with(|here| here.replace(before));
        }
    }
    let before = HERE.try_with(|here| here.replace(link));
    let _restore = Restore(before.ok().flatten());
    work()
}

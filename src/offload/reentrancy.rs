//! The lanes that the present thread works for.
//!
//! A closure may offload to its own lane and block on the result. It would wait for the permit that it holds itself. So
//! would a closure that blocks on another lane, whose closure blocks on the first one. Therefore a job knows the lanes of
//! the thread that offloaded it. Work that is offloaded to one of them runs at once, on the calling thread.

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
    /// The innermost link. It is shared only if this thread offloads.
    static HERE: RefCell<Option<Link>> = const { RefCell::new(None) };
}

impl Lanes {
    /// Returns the lanes of this thread. There are none while its thread-locals are destroyed.
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

    /// Runs work inside `lane`, which was called from these lanes.
    pub(super) fn within<T>(self, lane: u64, work: impl FnOnce() -> T) -> T {
        with_link(Some(Link { lane, outer: self }), work)
    }

    /// Runs work inside no lane. For the polls of a future, which do not block on a lane.
    pub(super) fn outside<T>(work: impl FnOnce() -> T) -> T {
        with_link(None, work)
    }
}

fn with_link<T>(link: Option<Link>, work: impl FnOnce() -> T) -> T {
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

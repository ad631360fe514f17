//! Under which watch a request goes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, RwLock};

use crate::catch_panic::catch_panic;
use crate::sync::IgnorePoison as _;
use crate::sys;
use crate::watch::{OTHER, Watch};
use crate::watchdog::Watchdog;

/// The watch of a service that is not ready yet: there is no request that could be classified.
const POLL_READY: &str = "poll_ready";

/// The watch of requests whose classifier panicked.
const UNCLASSIFIED: &str = "unclassified";

/// Under which watch a request goes: [`Always`] the same, or [`By`] a classifier.
pub trait Choose<Request>: sealed::Sealed {
    /// The watch of a request.
    #[doc(hidden)]
    fn of(&self, request: &Request) -> Watch;

    /// The watch of the polls before there is one.
    #[doc(hidden)]
    fn ready(&self) -> &Watch;
}

mod sealed {
    pub trait Sealed {}
}

/// Every request goes under one watch.
#[derive(Clone, Debug)]
pub struct Always {
    watch: Watch,
}

impl Always {
    pub(super) fn new(watch: &Watch) -> Self {
        let watch = watch.clone();
        Self { watch }
    }
}

impl sealed::Sealed for Always {}

impl<Request> Choose<Request> for Always {
    fn of(&self, _: &Request) -> Watch {
        self.watch.clone()
    }

    fn ready(&self) -> &Watch {
        &self.watch
    }
}

/// A request goes under the watch that a classifier names.
pub struct By<Classify> {
    shared: Arc<Shared<Classify>>,
}

struct Shared<Classify> {
    classify: Classify,
    watchdog: Watchdog,
    ready: Watch,
    /// Those that were made already: a watchdog looks a name up under a lock, and allocates.
    known: RwLock<HashMap<Cow<'static, str>, Watch>>,
}

impl<Classify> By<Classify> {
    pub(super) fn new(watchdog: &Watchdog, classify: Classify) -> Self {
        let shared = Shared {
            classify,
            watchdog: watchdog.clone(),
            ready: watchdog.watch(POLL_READY),
            known: RwLock::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }
}

impl<Classify> Shared<Classify> {
    fn watch(&self, name: Cow<'static, str>) -> Watch {
        let known = match self.known.try_read().ignore_poison() {
            Some(known) => known,
            // The thread that holds the lock may not exist in the child of a fork.
            None if sys::is_forked() => return self.watchdog.watch(name),
            None => self.known.read().ignore_poison(),
        };
        if let Some(watch) = known.get(&name) {
            return watch.clone();
        }
        drop(known);
        let watch = self.watchdog.watch(name.clone());
        // Past the limit of names there is no end to those that share one watch. In the child of a fork a reader that
        // does not exist there may be waited for.
        if watch.name() != OTHER && !sys::is_forked() {
            let mut known = self.known.write().ignore_poison();
            known.insert(name, watch.clone());
        }
        watch
    }
}

impl<Classify> Clone for By<Classify> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<Classify> sealed::Sealed for By<Classify> {}

impl<Request, Classify> Choose<Request> for By<Classify>
where
    Classify: Fn(&Request) -> Cow<'static, str>,
{
    fn of(&self, request: &Request) -> Watch {
        // It is not ours, and a request must not fail because of its name.
        let name = catch_panic(|| (self.shared.classify)(request));
        self.shared
            .watch(name.unwrap_or(Cow::Borrowed(UNCLASSIFIED)))
    }

    fn ready(&self) -> &Watch {
        &self.shared.ready
    }
}

impl<Classify> fmt::Debug for By<Classify> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("By").finish_non_exhaustive()
    }
}

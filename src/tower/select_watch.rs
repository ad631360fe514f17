//! Selects the watch of a request.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, RwLock};

use crate::catch_panic::catch_panic;
use crate::sync::IgnorePoison as _;
use crate::sys;
use crate::watch::{OTHER, Watch};
use crate::watchdog::Watchdog;

/// The watch of the polls of readiness, before which there is no request to classify.
const POLL_READY: &str = "poll_ready";

/// The watch of requests whose classifier panicked.
const UNCLASSIFIED: &str = "unclassified";

/// Selects the watch of a request. Public because `WatchService` is, but no other crate can name it.
pub trait SelectWatch<Request> {
    /// Returns the watch of a request.
    fn of(&self, request: &Request) -> Watch;

    /// Returns the watch of the polls of readiness.
    fn ready(&self) -> &Watch;
}

/// Selects one watch for all requests.
#[derive(Clone, Debug)]
pub struct OneWatch {
    watch: Watch,
}

impl OneWatch {
    pub(super) fn new(watch: &Watch) -> Self {
        let watch = watch.clone();
        Self { watch }
    }
}

impl<Request> SelectWatch<Request> for OneWatch {
    fn of(&self, _: &Request) -> Watch {
        self.watch.clone()
    }

    fn ready(&self) -> &Watch {
        &self.watch
    }
}

/// Selects the watch that a classifier names.
pub struct ByClassifier<Classify> {
    shared: Arc<SharedClassifier<Classify>>,
}

struct SharedClassifier<Classify> {
    classify: Classify,
    watchdog: Watchdog,
    ready: Watch,
    /// A cache. The watchdog looks a name up under a lock, and allocates.
    known: RwLock<HashMap<Cow<'static, str>, Watch>>,
}

impl<Classify> ByClassifier<Classify> {
    pub(super) fn new(watchdog: &Watchdog, classify: Classify) -> Self {
        let shared = SharedClassifier {
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

impl<Classify> SharedClassifier<Classify> {
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
        // The names past the limit share one watch and have no bound. In the child of a fork, a reader may hold the lock
        // whose thread does not exist.
        if watch.name() != OTHER && !sys::is_forked() {
            let mut known = self.known.write().ignore_poison();
            known.insert(name, watch.clone());
        }
        watch
    }
}

impl<Classify> Clone for ByClassifier<Classify> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<Request, Classify> SelectWatch<Request> for ByClassifier<Classify>
where
    Classify: Fn(&Request) -> Cow<'static, str>,
{
    fn of(&self, request: &Request) -> Watch {
        // The classifier is user code, and a request must not fail because of its name.
        let name = catch_panic(|| (self.shared.classify)(request));
        self.shared
            .watch(name.unwrap_or(Cow::Borrowed(UNCLASSIFIED)))
    }

    fn ready(&self) -> &Watch {
        &self.shared.ready
    }
}

impl<Classify> fmt::Debug for ByClassifier<Classify> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByClassifier").finish_non_exhaustive()
    }
}

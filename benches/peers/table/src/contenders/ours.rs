//! shotclock itself.

use std::future::Future;

use shotclock::{Guard, Timing, Watch, WatchExt as _, Watchdog};
use tokio::runtime::{Builder, Runtime};

use crate::Contender;

/// Every future is wrapped.
pub(super) struct Watched {
    watch: Watch,
}

impl Watched {
    pub(super) fn new(timing: Timing) -> Self {
        let builder = Watchdog::builder().without_tracing().timing(timing);
        let watchdog = builder.build().expect("threads can be started");
        Self {
            watch: watchdog.watch("table"),
        }
    }
}

impl Contender for Watched {
    const WRAPS: bool = true;

    fn wrap<F>(&self, future: F) -> impl Future<Output = ()> + Send + 'static
    where
        F: Future<Output = ()> + Send + 'static,
    {
        future.watched(&self.watch)
    }
}

/// Nothing is wrapped, and the runtimes are looked at.
pub(super) struct Guarded {
    watchdog: Watchdog,
    guards: Vec<Guard>,
}

impl Guarded {
    pub(super) fn new() -> Self {
        let builder = Watchdog::builder().without_tracing();
        Self {
            watchdog: builder.build().expect("threads can be started"),
            guards: Vec::new(),
        }
    }
}

impl Contender for Guarded {
    const WRAPS: bool = false;

    fn runtime(&mut self, mut builder: Builder) -> Runtime {
        let runtime = builder.build().expect("a runtime can be built");
        let guard = self.watchdog.guard("table", runtime.handle());
        self.guards.push(guard);
        runtime
    }
}

//! No watchdog, and the peers that wrap a future.

use std::future::Future;

use future_timed::TimedFutureExt as _;
use hotpath::{Format, HotpathGuard, HotpathGuardBuilder};
use tokio_metrics::TaskMonitor;

use crate::Contender;

pub(super) struct Bare;

impl Contender for Bare {
    const WRAPS: bool = true;
}

pub(super) struct FutureTimed;

impl Contender for FutureTimed {
    const WRAPS: bool = true;

    fn wrap<F>(&self, future: F) -> impl Future<Output = ()> + Send + 'static
    where
        F: Future<Output = ()> + Send + 'static,
    {
        future.timed(|timing| {
            std::hint::black_box(timing);
        })
    }
}

pub(super) struct Monitored {
    monitor: TaskMonitor,
}

impl Monitored {
    pub(super) fn new() -> Self {
        Self {
            monitor: TaskMonitor::new(),
        }
    }
}

impl Contender for Monitored {
    const WRAPS: bool = true;

    fn wrap<F>(&self, future: F) -> impl Future<Output = ()> + Send + 'static
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.monitor.instrument(future)
    }
}

pub(super) struct Hotpath {
    _guard: HotpathGuard,
}

impl Hotpath {
    pub(super) fn new() -> Self {
        // Without a format, because its report would be among our answers.
        let builder = HotpathGuardBuilder::new("table").format(Format::None);
        Self {
            _guard: builder.build(),
        }
    }
}

impl Contender for Hotpath {
    const WRAPS: bool = true;

    fn wrap<F>(&self, future: F) -> impl Future<Output = ()> + Send + 'static
    where
        F: Future<Output = ()> + Send + 'static,
    {
        hotpath::future!(future)
    }
}

//! Peers that hook into a runtime.

use dial9::{Dial9HandleTokioExt as _, MemoryBuffer, Recorder, TokioAttachOptions, recorder};
use tokio::runtime::{Builder, Runtime};

use crate::Contender;

pub(super) struct Histogram;

impl Contender for Histogram {
    const WRAPS: bool = false;

    fn runtime(&mut self, mut builder: Builder) -> Runtime {
        builder.enable_metrics_poll_time_histogram();
        builder.build().expect("a runtime can be built")
    }
}

/// As its introduction sets it up, with a buffer in memory in the place of files.
pub(super) struct Dial9 {
    recorder: Recorder,
}

const BUFFER: u64 = 16 << 20;

impl Dial9 {
    pub(super) fn new() -> Self {
        let buffer = MemoryBuffer::new(BUFFER).expect("the size is allowed");
        Self {
            recorder: recorder(buffer).build(),
        }
    }
}

impl Contender for Dial9 {
    const WRAPS: bool = false;

    fn runtime(&mut self, builder: Builder) -> Runtime {
        let options = TokioAttachOptions::builder().task_tracking_enabled(true);
        let attached = self
            .recorder
            .handle()
            .attach_tokio_runtime(builder, options.build());
        attached.expect("it attaches to any runtime")
    }
}

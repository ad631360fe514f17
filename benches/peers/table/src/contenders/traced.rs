//! Peers that read tokio's spans, as subscribers of the whole process.

use std::time::Duration;

use console_subscriber::ConsoleLayer;
use tokio_blocked::TokioBlockedLayer;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::Contender;

pub(super) struct Traced;

impl Contender for Traced {
    const WRAPS: bool = false;
}

/// As its introduction sets it up, less a log that prints.
pub(super) fn blocked() -> Traced {
    let limit = Duration::from_micros(150);
    let blocked = TokioBlockedLayer::new().with_warn_busy_single_poll(Some(limit));
    registry().with(blocked).init();
    Traced
}

/// Sets it up like its `init`, without a log: with a server on a free port, and no client.
pub(super) fn console() -> Traced {
    let console = ConsoleLayer::builder().server_addr(([127, 0, 0, 1], 0));
    registry().with(console.spawn()).init();
    Traced
}

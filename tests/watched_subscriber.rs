//! A watched and slow subscriber. Its own reports must not cause further ones.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::Duration;

use shotclock::{SlowPoll, Watch, WatchExt as _, Watchdog};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tracing_core::span::Current;

static OWN: OnceLock<Watch> = OnceLock::new();

struct Watched;

impl Subscriber for Watched {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
    fn current_span(&self) -> Current {
        if let Some(watch) = OWN.get() {
            let _entered = watch.enter();
            std::hint::black_box((0..100u64).map(std::hint::black_box).sum::<u64>());
        }
        Current::none()
    }
}

#[test]
fn watched_subscriber_does_not_feed_itself() {
    tracing::subscriber::set_global_default(Watched).unwrap();
    let (tx, rx) = mpsc::channel();
    let watchdog = Watchdog::builder()
        .without_tracing()
        .on_slow_poll(move |slow: &SlowPoll| drop(tx.send(slow.watch.to_string())))
        .build()
        .unwrap();
    let own = watchdog.watch("subscriber").with_budget(Duration::ZERO);
    OWN.set(own.clone()).unwrap();
    let watch = watchdog.watch("w").with_budget(Duration::ZERO);
    futures::executor::block_on(async {}.watched(&watch));
    assert!(watchdog.flush(Duration::from_secs(60)));
    assert_eq!(rx.try_iter().collect::<Vec<_>>(), ["w"]);
    assert_eq!(watch.stats().slow_polls, 1);
    assert!(own.stats().slow_polls >= 1);
}

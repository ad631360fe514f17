//! A subscriber that is installed last gets later events.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::mpsc;
use std::time::Duration;

use shotclock::{WatchExt as _, Watchdog};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

struct Events(mpsc::Sender<&'static str>);

impl Subscriber for Events {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let _ = self.0.send(event.metadata().target());
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn subscriber_installed_last_gets_events() {
    let watchdog = Watchdog::builder().build().unwrap();
    let watch = watchdog.watch("w").with_budget(Duration::ZERO);
    let poll = || futures::executor::block_on(async {}.watched(&watch));
    poll(); // no subscriber yet
    assert!(watchdog.flush(Duration::from_secs(60)));
    let (tx, rx) = mpsc::channel();
    tracing::subscriber::set_global_default(Events(tx)).unwrap();
    poll();
    assert!(watchdog.flush(Duration::from_secs(60)));
    assert_eq!(rx.try_iter().collect::<Vec<_>>(), ["shotclock"]);
    assert_eq!(watch.stats().slow_polls, 2);
}

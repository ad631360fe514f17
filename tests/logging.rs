//! The default reporter, and the span of a report.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shotclock::{Lane, OffloadExt as _, WatchExt as _, Watchdog, offload};
use tracing::instrument::WithSubscriber as _;
use tracing::{Dispatch, Instrument as _, info_span};
use tracing_subscriber::fmt::MakeWriter;

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn dispatch(&self) -> Dispatch {
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(self.clone());
        subscriber.finish().into()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

async fn slow_poll(watchdog: &Watchdog) {
    let watch = watchdog.watch("checkout").with_budget(Duration::ZERO);
    async { std::hint::black_box(()) }.watched(&watch).await;
}

#[test]
fn subscriber_scoped_to_the_build_gets_events() {
    let log = Log::default();
    let watchdog =
        tracing::dispatcher::with_default(&log.dispatch(), || Watchdog::builder().build().unwrap());
    // Polled on another thread, outside the scope.
    let polls = watchdog.clone();
    let poll = move || futures::executor::block_on(slow_poll(&polls));
    std::thread::Builder::new()
        .name("a-worker".into())
        .spawn(poll)
        .unwrap()
        .join()
        .unwrap();
    assert!(watchdog.flush(PATIENCE));
    let text = log.text();
    let parts = [
        "WARN shotclock: slow poll",
        "watch=\"checkout\"",
        "elapsed_ms=",
        "budget_ms=0",
        "location=tests/logging.rs:",
        "thread=a-worker",
        "hint=\"await instead of blocking",
    ];
    for part in parts {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(
        !text.contains("suppressed") && !text.contains("cause"),
        "{text}"
    );
}

#[tokio::test]
async fn event_is_inside_the_span_of_the_poll() {
    let log = Log::default();
    let watchdog = Watchdog::builder().build().unwrap();
    async {
        slow_poll(&watchdog)
            .instrument(info_span!("request", id = 7))
            .await
    }
    .with_subscriber(log.dispatch())
    .await;
    assert!(watchdog.flush(PATIENCE));
    let text = log.text();
    assert!(
        text.contains("request{id=7}: shotclock: slow poll"),
        "{text}"
    );
}

#[tokio::test]
async fn without_tracing_logs_no_event() {
    let log = Log::default();
    let watchdog = Watchdog::builder().without_tracing().build().unwrap();
    slow_poll(&watchdog).with_subscriber(log.dispatch()).await;
    assert!(watchdog.flush(PATIENCE));
    assert_eq!(log.text(), "");
    assert_eq!(watchdog.watch("checkout").stats().slow_polls, 1);
}

#[tokio::test]
async fn limit_of_names_logs_one_warning() {
    let log = Log::default();
    tracing::dispatcher::with_default(&log.dispatch(), || {
        let watchdog = Watchdog::builder().max_watches(1).build().unwrap();
        for name in ["a", "b", "c", "d"] {
            drop(watchdog.watch(name));
        }
    });
    let text = log.text();
    assert_eq!(text.matches("limit of watches").count(), 1, "{text}");
    assert!(text.contains("name=\"b\""), "{text}");
}

#[tokio::test]
async fn offloaded_closure_logs_in_the_callers_span() {
    let log = Log::default();
    async {
        offload(|| tracing::info!("hashing"))
            .instrument(info_span!("request", id = 8))
            .await
    }
    .with_subscriber(log.dispatch())
    .await
    .unwrap();
    let text = log.text();
    assert!(text.contains("request{id=8}: logging: hashing"), "{text}");
}

#[tokio::test]
async fn offloaded_future_logs_in_the_callers_span() {
    let log = Log::default();
    let lane = Lane::builder("logging").build().unwrap();
    let decode = async {
        tracing::info!("begins");
        tokio::task::yield_now().await;
        tracing::info!("ends");
    };
    async {
        decode
            .offloaded(&lane)
            .instrument(info_span!("request", id = 9))
            .await
    }
    .with_subscriber(log.dispatch())
    .await
    .unwrap();
    let text = log.text();
    for event in ["begins", "ends"] {
        let line = format!("request{{id=9}}: logging: {event}");
        assert!(text.contains(&line), "{text}");
    }
}

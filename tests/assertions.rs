//! `assert_poll_budget!` and `audit`, on every kind of runtime.
//!
//! A slow future here is slow on any machine, and a fast one has a budget that a busy machine keeps.
//! `tests/poll_budget_noise.rs` tests a busy machine.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::{BufRead as _, BufReader};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use common::{compute, failure_of, message};
use futures::stream::{self, FusedStream, StreamExt as _};
use futures::{FutureExt as _, Stream};
use shotclock::testing::{self, Audit, Recorder};
use shotclock::{
    Cause, SlowPoll, WatchExt as _, Watchdog, allow_blocking, assert_poll_budget, yield_every,
};
use tokio::runtime::Handle;
use tokio::task::yield_now;

const MS: Duration = Duration::from_millis(1);
const BUDGET: Duration = Duration::from_millis(5);
/// Longer than any poll of a fast test.
const AMPLE: Duration = Duration::from_secs(30);
const SLOW: Duration = Duration::from_millis(30);
/// The default budget of an audit, from which on it captures a stack. The active time of a sleep is at least this.
const LOOKED_AT: Duration = Duration::from_millis(10);

fn block() {
    thread::sleep(SLOW);
}

async fn blocks_in_its_second_poll() -> u32 {
    yield_now().await;
    block();
    yield_now().await;
    7
}

fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Asserts that a text has a line with this begin and this part.
fn has_line(text: &str, beginning: &str, rest: &str) -> bool {
    let mut lines = text.lines();
    lines.any(|line| line.starts_with(beginning) && line[beginning.len()..].contains(rest))
}

fn assert_line(text: &str, beginning: &str, rest: &str) {
    assert!(
        has_line(text, beginning, rest),
        "{beginning}{rest} in:\n{text}"
    );
}

#[tokio::test]
async fn assertion_of_a_fast_future_returns_its_output() {
    let number = assert_poll_budget!(AMPLE, async { 40 + 2 }).await;
    assert_eq!(number, 42);
    let text = String::from("borrowed");
    let length = assert_poll_budget!(AMPLE, async { text.len() }, "with {text}",).await;
    assert_eq!(length, 8);
    let boxed: Pin<Box<dyn Future<Output = u8> + Send>> = Box::pin(async { 3 });
    assert_eq!(
        tokio::spawn(assert_poll_budget!(AMPLE, boxed))
            .await
            .unwrap(),
        3
    );
}

#[tokio::test]
async fn assertion_of_a_blocking_poll_fails_with_all_facts() {
    let line = line!() + 1;
    let failure = failure_of(assert_poll_budget!(BUDGET, blocks_in_its_second_poll())).await;
    assert_line(&failure, "poll 2 of 3 took ", "ms, budget 5ms");
    assert_line(&failure, "  elapsed ", " blocked + ");
    assert_line(&failure, "  cause      ", "blocked");
    assert_line(
        &failure,
        "  asserted   ",
        &format!("tests/assertions.rs:{line}:"),
    );
    assert_line(
        &failure,
        "  future     ",
        "assertions::blocks_in_its_second_poll",
    );
    assert_line(&failure, "  thread     ", "assertion_of_a_blocking_poll");
    assert_line(&failure, "3 polls, 2 yields, 2 wake-ups", "");
    assert_line(&failure, "active", "ms");
    assert_line(&failure, "≤ ", "█");
    if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        assert_line(&failure, "  charged    ", "ms");
        assert_line(&failure, "  hint       ", "tokio::time::sleep");
        assert_line(&failure, "    assertions::block ", "tests/assertions.rs:");
        let defined = line_of("async fn blocks_in_its_second_poll");
        assert_line(
            &failure,
            "  future     ",
            &format!(" (tests/assertions.rs:{defined})"),
        );
    }
}

fn line_of(text: &str) -> usize {
    let source = include_str!("assertions.rs");
    1 + source
        .lines()
        .position(|line| line.starts_with(text))
        .unwrap()
}

#[tokio::test]
async fn assertion_of_a_computing_poll_fails() {
    let failure = failure_of(assert_poll_budget!(
        BUDGET,
        async { compute(SLOW) },
        "hog {}",
        7
    ));
    let failure = failure.await;
    assert_line(&failure, "hog 7", "");
    assert_line(&failure, "poll 1 of 1 took ", "ms, budget 5ms");
    assert_line(&failure, "  cause      ", "computing");
    assert_line(&failure, "  hint       ", "yield_after");
}

#[test]
fn assertion_failure_has_the_line_of_the_macro() {
    let place = std::sync::Arc::new(std::sync::Mutex::new(None));
    let keep = std::sync::Arc::clone(&place);
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload().downcast_ref::<String>();
        if text.is_some_and(|text| text.starts_with("where the macro was called")) {
            let location = panic.location().map(|at| (at.file().to_owned(), at.line()));
            *keep.lock().unwrap() = location;
        } else {
            default(panic);
        }
    }));
    let slow = async { block() };
    let line = line!() + 1;
    let held = assert_poll_budget!(BUDGET, slow, "where the macro was called");
    assert!(std::panic::catch_unwind(AssertUnwindSafe(|| held.now_or_never())).is_err());
    let place = place.lock().unwrap().take();
    assert_eq!(place, Some((file!().to_owned(), line)));
}

#[tokio::test]
async fn assertion_of_a_panicking_future_keeps_its_message() {
    let panics = async {
        block();
        panic!("its own words");
    };
    assert_eq!(
        failure_of(assert_poll_budget!(BUDGET, panics)).await,
        "its own words"
    );
    let caught = async {
        block();
        panic!("its own words");
    };
    let caught = AssertUnwindSafe(assert_poll_budget!(BUDGET, caught)).catch_unwind();
    assert_eq!(message(caught.await.unwrap_err()), "its own words");
    let panics = async { panic!("its own words") };
    assert_eq!(failure_of(testing::audit(panics)).await, "its own words");
}

#[tokio::test]
async fn assertion_dropped_before_the_end_is_checked_on_drop() {
    let stuck = async {
        block();
        std::future::pending::<()>().await;
    };
    let given_up = async { tokio::time::timeout(MS, assert_poll_budget!(BUDGET, stuck)).await };
    assert_line(&failure_of(given_up).await, "poll 1 of ", " took ");
    drop(assert_poll_budget!(BUDGET, blocks_in_its_second_poll()));
    let mut quick = Box::pin(assert_poll_budget!(AMPLE, std::future::pending::<()>()));
    assert!(poll_once(quick.as_mut()).is_pending());
    drop(quick);
}

#[tokio::test]
async fn assertion_dropped_during_an_unwinding_is_silent() {
    let both = async {
        let mut slow = pin!(assert_poll_budget!(BUDGET, blocks_in_its_second_poll()));
        assert!(poll_once(slow.as_mut()).is_pending());
        assert!(poll_once(slow.as_mut()).is_pending());
        panic!("the first panic");
    };
    assert_eq!(failure_of(both).await, "the first panic");
}

#[tokio::test]
async fn assertion_of_a_stream_is_checked_at_its_end() {
    let quick = assert_poll_budget!(AMPLE, stream::iter([1, 2, 3]));
    assert_eq!(quick.size_hint(), (3, Some(3)));
    assert_eq!(quick.collect::<Vec<_>>().await, [1, 2, 3]);
    let slow = || {
        stream::iter([1, 2, 3]).inspect(|item| {
            if *item == 2 {
                block()
            }
        })
    };
    let failure = failure_of(assert_poll_budget!(BUDGET, slow()).count()).await;
    // The fourth poll returns the end.
    assert_line(&failure, "poll 2 of 4 took ", "");
    let mut some = assert_poll_budget!(BUDGET, slow());
    let failure = failure_of(async move {
        assert_eq!(some.next().await, Some(1));
        assert_eq!(some.next().await, Some(2));
    });
    assert_line(&failure.await, "poll 2 of 2 took ", "");
}

#[tokio::test]
async fn stream_polled_after_its_end_passes_through() {
    let mut ended = assert_poll_budget!(AMPLE, stream::iter([1]).fuse());
    assert_eq!(ended.next().await, Some(1));
    assert_eq!(ended.next().await, None);
    assert_eq!(ended.next().await, None);
    fn is_stream(_: &impl Stream) {}
    is_stream(&ended);
    assert!(
        stream::iter([1])
            .chain(stream::empty())
            .fuse()
            .size_hint()
            .0
            == 1
    );
    assert!(!stream::iter([1]).fuse().is_terminated());
}

#[tokio::test]
async fn audit_counts_polls_yields_and_wake_ups() {
    let mut calls = 0;
    let woken_twice = std::future::poll_fn(|cx| {
        calls += 1;
        cx.waker().wake_by_ref();
        cx.waker().wake_by_ref();
        match calls {
            4 => Poll::Ready("done"),
            _ => Poll::Pending,
        }
    });
    let audit = testing::audit(woken_twice).await;
    assert_eq!(audit.output, "done");
    assert_eq!((audit.polls(), audit.yields(), audit.wake_ups()), (4, 3, 8));
    assert_eq!(audit.each().len(), 4);
    assert!(
        audit
            .to_string()
            .starts_with("4 polls, 3 yields, 8 wake-ups, ")
    );
}

#[tokio::test]
async fn audit_times_are_consistent() {
    let audit = testing::audit(async {
        for _ in 0..20 {
            compute(MS);
            yield_now().await;
        }
        block();
    });
    let audit = audit.budget(BUDGET).await;
    assert_eq!(audit.polls(), 21);
    assert!(audit.longest_own() > BUDGET && audit.longest_own() <= audit.longest());
    assert!(audit.elapsed() >= audit.each().map(|poll| poll.elapsed).sum());
    assert_eq!(audit.quantile(1.0), Some(audit.longest_own()));
    assert!(audit.quantile(0.5) >= Some(MS) && audit.quantile(0.5) <= audit.quantile(0.9));
    assert_eq!(audit.slow_polls(Duration::ZERO), 21);
    assert_eq!(audit.slow_polls(audit.longest_own()), 0);
    let longest = audit
        .each()
        .filter(|poll| poll.active == audit.longest_own());
    assert_eq!(
        audit.slow_polls(audit.longest_own() - MS / 1_000),
        longest.count() as u64
    );
    let worst = audit.worst().unwrap();
    assert_eq!((worst.charged, worst.budget), (audit.longest_own(), BUDGET));
    assert!(matches!(worst.cause, Cause::Blocked(_)), "{worst}");
    let split = worst.split.unwrap();
    assert_eq!(split.observed(), worst.elapsed);
    assert!(split.blocked >= BUDGET / 2 && split.blocked <= worst.elapsed);
    assert!(audit.knows_own_time());
}

#[tokio::test]
async fn audit_without_a_poll_is_empty() {
    let never = testing::audit(std::future::pending::<()>());
    drop(never);
    let audit = testing::audit(async {}).await;
    assert_eq!((audit.polls(), audit.yields(), audit.wake_ups()), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn audit_under_paused_time_uses_the_real_clock() {
    let before = tokio::time::Instant::now();
    let audit = testing::audit(async {
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        block();
    });
    let audit = audit.await;
    assert!(before.elapsed() >= Duration::from_secs(3_600));
    assert!(audit.longest_own() > LOOKED_AT && audit.elapsed() < Duration::from_secs(3_000));
    assert_eq!(audit.polls(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn audits_at_once_are_independent() {
    let audits = (0..32_u64).map(|number| {
        tokio::spawn(testing::audit(async move {
            for _ in 0..number {
                yield_now().await;
            }
            if number % 8 == 0 {
                block();
            }
        }))
    });
    for (number, audit) in futures::future::join_all(audits)
        .await
        .into_iter()
        .enumerate()
    {
        let audit = audit.unwrap();
        assert_eq!(audit.polls(), number as u64 + 1);
        assert_eq!(
            audit.longest_own() > LOOKED_AT,
            number % 8 == 0,
            "{number}: {audit}"
        );
    }
}

#[tokio::test]
async fn nested_audits_are_independent() {
    let (inner, outer) = {
        let inner = || async {
            yield_now().await;
            block();
        };
        let outer = testing::audit(async {
            let first = testing::audit(inner()).await;
            yield_now().await;
            let caught = failure_of(assert_poll_budget!(BUDGET, inner())).await;
            (first, caught)
        })
        .await;
        let Audit { output, .. } = &outer;
        (output.0.polls(), (outer.polls(), outer.slow_polls(BUDGET)))
    };
    assert_eq!(inner, 2);
    assert_eq!(outer, (4, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audit_on_the_blocking_pool_counts_polls() {
    let handle = Handle::current();
    let audit = tokio::task::spawn_blocking(move || {
        handle.block_on(testing::audit(blocks_in_its_second_poll()))
    });
    let audit = audit.await.unwrap();
    assert_eq!((audit.polls(), audit.slow_polls(BUDGET)), (3, 1));
}

/// A thread that was on the run queue for long before it polls. That wait must not be subtracted from the poll.
#[test]
#[cfg(target_os = "linux")]
fn audit_of_a_moving_future_uses_the_thread_of_each_poll() {
    type Moved = Pin<Box<dyn Future<Output = Audit<()>> + Send>>;
    let (send, receive) = mpsc::channel::<Moved>();
    let starved = thread::spawn(move || {
        common::be_starved(4 * SLOW);
        let mut future = receive.recv().unwrap();
        match poll_once(future.as_mut()) {
            Poll::Ready(audit) => audit,
            Poll::Pending => panic!("it has two polls"),
        }
    });
    let fresh = thread::spawn(move || {
        let mut future: Moved = Box::pin(testing::audit(async {
            yield_now_without_a_runtime().await;
            block();
        }));
        assert!(poll_once(future.as_mut()).is_pending());
        send.send(future).unwrap();
    });
    fresh.join().unwrap();
    let audit = starved.join().unwrap();
    assert_eq!((audit.polls(), audit.slow_polls(BUDGET)), (2, 1), "{audit}");
    assert!(audit.longest_own() > LOOKED_AT && audit.longest_own() <= audit.longest());
}

async fn yield_now_without_a_runtime() {
    let mut pace = yield_every(1);
    pace.tick().await;
}

#[test]
fn audit_without_a_runtime_works() {
    let audit = testing::audit(async { 7 }).now_or_never().unwrap();
    assert_eq!((audit.output, audit.polls()), (7, 1));
}

#[tokio::test]
async fn assertion_with_allow_blocking_charges_no_allowed_time() {
    let declared = || async {
        let _allowed = allow_blocking("a test", AMPLE);
        block();
    };
    assert_poll_budget!(SLOW - MS, declared()).await;
    let audit = testing::audit(declared()).await;
    assert!(audit.longest() >= SLOW);
    assert_eq!(audit.slow_polls(SLOW - MS), 0);
}

/// The statistics of a watchdog are those of the program without an audit.
#[tokio::test]
async fn audit_is_in_no_statistics_of_a_watchdog() {
    // The first audit of a process waits for the test capture.
    testing::audit(async {}).await;
    let recorder = Recorder::new();
    let builder = Watchdog::builder().without_tracing();
    let watchdog = builder.reporter(recorder.clone()).build().unwrap();
    let (outer, inner) = (watchdog.watch("outer"), watchdog.watch("inner"));
    // Long enough that starvation does not matter.
    let outer = outer.with_budget(AMPLE);
    let slow = async { block() }.watched(&inner);
    let nested = async {
        let audit = testing::audit(slow).budget(BUDGET).await;
        assert_eq!(audit.slow_polls(BUDGET), 1);
        audit.worst().unwrap()
    };
    let mut nested = pin!(nested.watched(&outer));
    let worst: SlowPoll = nested.as_mut().await;
    assert!(worst.elapsed >= SLOW && worst.watch.contains("assertions::"));

    let slow = recorder.assert_reported(&watchdog, "inner");
    assert_eq!(slow.path.to_string(), "outer");
    assert!(
        recorder
            .reports()
            .iter()
            .all(|slow| *slow.watch == *"inner")
    );
    let (outer, inner) = (outer.stats(), inner.stats());
    assert_eq!((outer.polls, outer.slow_polls, inner.slow_polls), (1, 0, 1));
    assert!(inner.busy >= SLOW && outer.busy + inner.busy <= outer.longest);
}

#[tokio::test]
#[ignore = "hangs for a minute: the test below runs it in a process of its own"]
async fn hangs() {
    assert_poll_budget!(BUDGET, async { thread::sleep(Duration::from_secs(60)) }).await;
}

#[test]
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn audited_poll_without_end_is_written_to_stderr() {
    let mut test = Command::new(std::env::current_exe().unwrap());
    let test = test.args(["--exact", "hangs", "--ignored"]);
    let mut test = test
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(test.stderr.take().unwrap()).lines();
    let mut lines = lines.map(Result::unwrap);
    let told =
        lines.find(|line| line.starts_with("shotclock: a poll audited at tests/assertions.rs:"));
    let told = told.expect("no report within a minute");
    assert!(
        told.contains(" has stalled for ") && told.ends_with("blocked in clock_nanosleep"),
        "{told}"
    );
    assert!(
        lines.any(|line| line.contains("assertions::hangs::")),
        "and its stack"
    );
    test.kill().unwrap();
    test.wait().unwrap();
}

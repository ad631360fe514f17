//! Contained polls: the other tasks run, containment begins and ends, and some threads have none.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use futures::StreamExt as _;
use shotclock::report::SectionKind;
use shotclock::{SlowPoll, Watch, WatchExt as _, Watchdog};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{LocalSet, yield_now};

const BUDGET: Duration = Duration::from_millis(1);
const SLOW: Duration = Duration::from_millis(5);

fn watchdog() -> Watchdog {
    let builder = Watchdog::builder().without_tracing().budget(BUDGET);
    builder.build().unwrap()
}

fn workers(count: usize) -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(count)
        .enable_all()
        .build()
        .unwrap()
}

/// Makes slow polls until one was contained. On a busy host, some of them may count as starved.
async fn make_slow_polls(watch: &Watch) {
    let watched = async {
        while watch.stats().contained_polls == 0 {
            thread::sleep(SLOW);
            yield_now().await;
        }
    };
    watched.watched(watch).await;
}

#[test]
fn contained_poll_lets_the_other_tasks_run() {
    let (watchdog, runtime) = (watchdog(), workers(1));
    let legacy = watchdog.watch("legacy").contained();
    let (ask, mut asked) = tokio::sync::mpsc::unbounded_channel::<mpsc::Sender<()>>();
    // The poll has the only worker. It blocks until another task has run, or until the watch must expect the next
    // overrun.
    let blocks = async move {
        let work = async {
            for _ in 0..200 {
                let (answer, answered) = mpsc::channel();
                ask.send(answer).unwrap();
                if answered.recv_timeout(10 * SLOW).is_ok() {
                    return;
                }
                yield_now().await;
            }
            panic!("no other task has run");
        };
        work.watched(&legacy).await;
    };
    let answers = async move {
        while let Some(answer) = asked.recv().await {
            let _ = answer.send(());
        }
    };
    let tasks = [runtime.spawn(blocks), runtime.spawn(answers)];
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
}

#[test]
fn contained_stream_hands_its_worker_over() {
    let (watchdog, runtime) = (watchdog(), workers(1));
    let watch = watchdog.watch("stream").contained();
    let watched = watch.clone();
    let drive = async move {
        let slow = futures::stream::repeat(()).map(|()| thread::sleep(SLOW));
        let mut slow = slow.watched(&watched);
        while watched.stats().contained_polls == 0 {
            slow.next().await;
        }
    };
    runtime.block_on(runtime.spawn(drive)).unwrap();
}

#[test]
fn containment_ends_after_fast_polls() {
    let (watchdog, runtime) = (watchdog(), workers(1));
    let watch = watchdog.watch("repaired").contained();
    let fast = |watch: Watch| async move {
        let polls = async {
            for _ in 0..2_000 {
                yield_now().await;
            }
        };
        polls.watched(&watch).await;
    };
    let mended = watch.clone();
    let overruns = async move { make_slow_polls(&mended).await };
    runtime.block_on(runtime.spawn(overruns)).unwrap();
    let contained = || watch.stats().contained_polls;
    let before = contained();
    runtime
        .block_on(runtime.spawn(fast(watch.clone())))
        .unwrap();
    let forgetting = contained() - before;
    // Some dozens of polls, unless the host made polls slow, and then none.
    assert!(forgetting < 1_000, "{forgetting}");

    // Also under a budget that polls on a busy host may exceed now and then.
    let polite = watchdog
        .watch("polite")
        .with_budget(Duration::MAX)
        .contained();
    runtime
        .block_on(runtime.spawn(fast(polite.clone())))
        .unwrap();
    assert_eq!(polite.stats().contained_polls, 0);
}

#[test]
fn containment_without_other_tasks_or_threads_is_plain() {
    let watchdog = watchdog();
    let watch = watchdog.watch("plain").contained();
    let overruns = || {
        let watch = watch.clone();
        async move {
            let watched = async {
                for _ in 0..5 {
                    thread::sleep(SLOW);
                    yield_now().await;
                }
            };
            watched.watched(&watch).await;
        }
    };
    let single = Builder::new_current_thread().build().unwrap();
    let multi = workers(1);
    let local = |runtime: &Runtime| {
        let set = LocalSet::new();
        let task = set.spawn_local(overruns());
        set.block_on(runtime, task).unwrap();
        set.block_on(runtime, overruns());
    };
    futures::executor::block_on(overruns());
    single.block_on(overruns());
    single.block_on(single.spawn(overruns())).unwrap();
    local(&single);
    local(&multi);
    multi.block_on(overruns());
    let on_the_pool = {
        let (handle, work) = (multi.handle().clone(), overruns());
        multi.spawn_blocking(move || handle.block_on(work))
    };
    multi.block_on(on_the_pool).unwrap();
    // A thread of one runtime that has entered another.
    single.block_on(async {
        let _entered = multi.enter();
        overruns().await;
    });
    let stats = watch.stats();
    assert!(stats.slow_polls > 0);
    assert_eq!(stats.contained_polls, 0);

    let works = |runtime: &Runtime| {
        let _entered = runtime.enter();
        watchdog.capabilities().containment.works()
    };
    assert!(!watchdog.capabilities().containment.works());
    assert!(!works(&single));
    assert!(works(&multi));
}

#[test]
fn contained_polls_stay_within_the_limit() {
    let builder = Watchdog::builder().without_tracing().budget(BUDGET);
    let watchdog = builder.contain().max_contained(1).build().unwrap();
    let runtime = workers(3);
    // For all watches, by the builder.
    let watch = watchdog.watch("limited");
    let learns = watch.clone();
    runtime
        .block_on(runtime.spawn(async move { make_slow_polls(&learns).await }))
        .unwrap();
    let before = watch.stats().contained_polls;
    let (started, starts) = mpsc::channel();
    let mut gates = Vec::new();
    let tasks: Vec<_> = (0..2)
        .map(|_| {
            let (gate, opened) = mpsc::channel::<()>();
            gates.push(gate);
            let started = started.clone();
            let blocks = async move {
                started.send(()).unwrap();
                let _ = opened.recv();
            };
            runtime.spawn(blocks.watched(&watch))
        })
        .collect();
    starts.recv().unwrap();
    starts.recv().unwrap();
    assert_eq!(watch.stats().contained_polls - before, 1);
    drop(gates);
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
}

#[test]
fn contained_poll_is_reported_as_contained_and_keeps_its_panic() {
    let kinds = Arc::<Mutex<Vec<SectionKind>>>::default();
    let collect = {
        let kinds = Arc::clone(&kinds);
        move |slow: &SlowPoll| kinds.lock().unwrap().push(slow.kind)
    };
    let builder = Watchdog::builder().without_tracing().budget(BUDGET);
    let builder = builder.reports_per_second(1_000).on_slow_poll(collect);
    let (watchdog, runtime) = (builder.build().unwrap(), workers(1));
    let watch = watchdog.watch("told").contained();
    let learns = watch.clone();
    runtime
        .block_on(runtime.spawn(async move { make_slow_polls(&learns).await }))
        .unwrap();
    let contained_slowly = async {
        // Some polls may be starved.
        for _ in 0..20 {
            thread::sleep(SLOW);
            yield_now().await;
        }
    };
    runtime
        .block_on(runtime.spawn(contained_slowly.watched(&watch)))
        .unwrap();
    assert!(watchdog.flush(Duration::from_secs(60)));
    let kinds = kinds.lock().unwrap();
    assert!(kinds.contains(&SectionKind::Contained), "{kinds:?}");

    let before = watch.stats();
    let panics = async { panic!("page 7") };
    let panicked = runtime.block_on(runtime.spawn(panics.watched(&watch)));
    let payload = panicked.unwrap_err().into_panic();
    assert_eq!(*payload.downcast::<&str>().unwrap(), "page 7");
    let after = watch.stats();
    assert_eq!(after.contained_polls - before.contained_polls, 1);
    assert_eq!(after.panicked_polls - before.panicked_polls, 1);
    // The limit has room again, and the worker is free.
    runtime
        .block_on(runtime.spawn(async {}.watched(&watch)))
        .unwrap();
}

#[test]
fn runtime_shutdown_during_a_contained_poll_drops_its_task() {
    struct Dropped(Arc<AtomicBool>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
        }
    }
    let watchdog = watchdog();
    for _ in 0..5 {
        let runtime = workers(1);
        let watch = watchdog.watch("shutdown").contained();
        let dropped = Arc::new(AtomicBool::new(false));
        let (reached, at) = mpsc::channel();
        let (open, gate) = mpsc::channel::<()>();
        let guard = Dropped(Arc::clone(&dropped));
        let work = async move {
            let _guard = guard;
            make_slow_polls(&watch).await;
            let in_a_contained_poll = async move {
                reached.send(()).unwrap();
                let _ = gate.recv();
                // The runtime is shutting down, and its timers are gone.
                for _ in 0..1_000 {
                    poll_once(tokio::time::sleep(Duration::from_secs(60))).await;
                    thread::sleep(Duration::from_millis(1));
                }
                yield_now().await;
            };
            in_a_contained_poll.watched(&watch).await;
        };
        let task = runtime.spawn(work);
        at.recv().unwrap();
        let down = thread::spawn(move || drop(runtime));
        drop(open);
        down.join().unwrap();
        assert!(dropped.load(SeqCst));
        let ended = futures::executor::block_on(task).unwrap_err();
        assert!(ended.is_cancelled(), "{ended}");
    }
}

async fn poll_once(future: impl Future) {
    let mut future = std::pin::pin!(future);
    poll_fn(|cx| {
        let _ = future.as_mut().poll(cx);
        Poll::Ready(())
    })
    .await;
}

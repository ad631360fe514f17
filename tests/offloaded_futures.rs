//! Whole futures on the threads of a lane.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use shotclock::offload::LaneBuilder;
use shotclock::{Lane, OffloadError, OffloadExt as _, WatchExt as _, Watchdog};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn both(name: &str, set_up: impl Fn(LaneBuilder) -> LaneBuilder) -> [Lane; 2] {
    let tokio = Lane::builder(format!("{name}, tokio"));
    let rayon = Lane::builder(format!("{name}, rayon")).rayon();
    [tokio, rayon].map(|builder| set_up(builder).build().unwrap())
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn wait_until(what: impl Fn() -> bool) {
    for _ in 0..60_000 {
        if what() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("it never came");
}

#[test]
fn offloaded_future_uses_timers_sockets_and_tasks() {
    let runtime = runtime();
    let worker = || std::thread::current().id();
    for lane in both("inside", |lane| lane.limit(1)) {
        let talk = async move {
            let first = worker();
            tokio::time::sleep(Duration::from_millis(1)).await;
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let client = tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(b"ball").await.unwrap();
            });
            let mut text = String::new();
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_to_string(&mut text).await.unwrap();
            client.await.unwrap();
            (text, first, tokio::runtime::worker_index())
        };
        let task = runtime.spawn(talk.offloaded(&lane));
        let (text, first, index) = runtime.block_on(task).unwrap().unwrap();
        assert_eq!(text, "ball");
        assert_ne!(first, worker());
        assert_eq!(index, None, "it was polled on a worker");
        wait_until(|| lane.stats().running == 0);
    }
}

#[test]
fn offloaded_future_holds_no_permit_between_polls() {
    let runtime = runtime();
    let _entered = runtime.enter();
    for lane in both("between", |lane| lane.limit(1).queue(0)) {
        let (notify, waits) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let mut waiting: Vec<_> = (0..20)
            .map(|_| {
                let (notify, waits) = (Arc::clone(&notify), Arc::clone(&waits));
                let wait = async move {
                    let mut notified = pin!(notify.notified());
                    notified.as_mut().enable();
                    waits.fetch_add(1, SeqCst);
                    notified.await;
                };
                Box::pin(wait.offloaded(&lane))
            })
            .collect();
        for future in &mut waiting {
            assert!(poll_once(future.as_mut()).is_pending());
        }
        wait_until(|| waits.load(SeqCst) == 20);
        wait_until(|| lane.stats().running == 0);
        assert_eq!(futures::executor::block_on(lane.run(|| 1)).unwrap(), 1);
        notify.notify_waiters();
        let all = futures::future::join_all(waiting);
        assert!(runtime.block_on(all).iter().all(Result::is_ok));
    }
}

#[test]
fn offloaded_future_with_many_wake_ups_loses_none() {
    let runtime = runtime();
    for lane in both("wake-ups", |lane| lane.limit(2)) {
        let (tx, mut rx) = tokio::sync::mpsc::channel(1);
        let sum = async move {
            let mut sum = 0;
            while let Some(number) = rx.recv().await {
                sum += number;
            }
            sum
        };
        let sum = runtime.spawn(sum.offloaded(&lane));
        runtime.block_on(async move {
            for number in 0..20_000u64 {
                tx.send(number).await.unwrap();
            }
        });
        assert_eq!(runtime.block_on(sum).unwrap().unwrap(), 199_990_000);
    }
}

/// Sends the thread of its drop.
struct Dropped(mpsc::Sender<std::thread::ThreadId>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send(std::thread::current().id());
    }
}

#[test]
fn offloaded_future_is_dropped_on_the_lane() {
    let runtime = runtime();
    let _entered = runtime.enter();
    for lane in both("dropped", |lane| lane.limit(1)) {
        let (tx, rx) = mpsc::channel();
        let polls = Arc::new(AtomicUsize::new(0));
        let (dropped, counted) = (Dropped(tx), Arc::clone(&polls));
        let endless = async move {
            let _dropped = dropped;
            loop {
                counted.fetch_add(1, SeqCst);
                tokio::task::yield_now().await;
            }
        };
        {
            let mut offloaded = pin!(endless.offloaded(&lane));
            assert!(poll_once(offloaded.as_mut()).is_pending());
            wait_until(|| polls.load(SeqCst) > 100);
        }
        assert_ne!(rx.recv().unwrap(), std::thread::current().id());
        futures::executor::block_on(lane.close());
        assert_eq!((lane.stats().running, lane.stats().queued), (0, 0));
    }
}

#[test]
fn offloaded_future_that_panics_returns_the_panic() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a destructor");
        }
    }
    let runtime = runtime();
    let _entered = runtime.enter();
    for lane in both("panics", |lane| lane.limit(1)) {
        let panics = async {
            tokio::task::yield_now().await;
            panic!("page 7");
        };
        let panics = runtime.block_on(panics.offloaded(&lane));
        let Err(OffloadError::Panicked(panic)) = panics else {
            panic!("it did not panic")
        };
        assert_eq!(panic.message(), Some("page 7"));

        // The destructors of the future, and of an output without a caller.
        let bomb = Bomb;
        let waits = async move {
            let _bomb = bomb;
            std::future::pending::<()>().await;
        };
        let (go_on, gone_on) = tokio::sync::oneshot::channel::<()>();
        let returns = async move {
            let _ = gone_on.await;
            Bomb
        };
        {
            let mut waits = pin!(waits.offloaded(&lane));
            assert!(poll_once(waits.as_mut()).is_pending());
        }
        let mut returns = Box::pin(returns.offloaded(&lane));
        assert!(poll_once(returns.as_mut()).is_pending());
        drop(go_on);
        futures::executor::block_on(lane.close());
        let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(returns)));
        drop(dropped);
        assert_eq!((lane.stats().running, lane.stats().queued), (0, 0));
    }
}

#[test]
fn close_lets_an_offloaded_future_end() {
    let runtime = runtime();
    let _entered = runtime.enter();
    for lane in both("closing", |lane| lane.limit(1)) {
        let notify = Arc::new(Notify::new());
        let waits = {
            let notify = Arc::clone(&notify);
            async move { notify.notified().await }
        };
        let mut waits = Box::pin(waits.offloaded(&lane));
        assert!(poll_once(waits.as_mut()).is_pending());
        let mut closing = pin!(lane.close());
        assert!(poll_once(closing.as_mut()).is_pending());
        let refused = futures::executor::block_on(async {}.offloaded(&lane));
        assert!(
            matches!(refused, Err(OffloadError::Closed { .. })),
            "{refused:?}"
        );
        notify.notify_one();
        runtime.block_on(waits).unwrap();
        runtime.block_on(closing);
    }
}

#[test]
fn cancel_all_ends_an_offloaded_future() {
    let runtime = runtime();
    let _entered = runtime.enter();
    for lane in both("cancelled", |lane| lane.limit(1)) {
        let yields = async {
            loop {
                tokio::task::yield_now().await;
            }
        };
        let mut yields = pin!(yields.offloaded(&lane));
        assert!(poll_once(yields.as_mut()).is_pending());
        lane.cancel_all();
        let cancelled: Result<(), _> = runtime.block_on(yields);
        assert!(
            matches!(cancelled, Err(OffloadError::Cancelled { .. })),
            "{cancelled:?}"
        );
        assert_eq!(runtime.block_on(async { 1 }.offloaded(&lane)).unwrap(), 1);
    }
}

#[test]
fn offloaded_future_after_a_runtime_shutdown_is_closed() {
    let lane = Lane::builder("shut down").limit(1).build().unwrap();
    let runtime = runtime();
    let notify = Arc::new(Notify::new());
    let waits = {
        let notify = Arc::clone(&notify);
        async move { notify.notified().await }
    };
    let mut waits = Box::pin(waits.offloaded(&lane));
    {
        let _entered = runtime.enter();
        assert!(poll_once(waits.as_mut()).is_pending());
        wait_until(|| lane.stats().running == 0);
    }
    drop(runtime);
    notify.notify_one();
    let closed = futures::executor::block_on(waits);
    // It was woken after the threads had ended, or before.
    assert!(
        matches!(closed, Ok(()) | Err(OffloadError::Closed { .. })),
        "{closed:?}"
    );
    futures::executor::block_on(lane.close());
}

#[test]
fn offloaded_future_is_watched_and_carries_context() {
    tokio::task_local! {
        static TENANT: u32;
    }
    let watchdog = Watchdog::builder().without_tracing().build().unwrap();
    let watch = watchdog.watch("offloaded");
    let runtime = runtime();
    let carry = || {
        let tenant = TENANT.get();
        move |work: &mut dyn FnMut()| TENANT.sync_scope(tenant, work)
    };
    for lane in both("watched", |lane| lane.carry(carry)) {
        let before = watch.stats().polls;
        let twice = async {
            let first = TENANT.get();
            tokio::task::yield_now().await;
            (first, TENANT.get())
        };
        let offloaded = twice.watched(&watch).offloaded(&lane);
        let seen = runtime.block_on(TENANT.scope(7, offloaded));
        assert_eq!(seen.unwrap(), (7, 7));
        assert_eq!(watch.stats().polls - before, 2);
    }
}

#[test]
fn closure_that_blocks_on_an_offloaded_future_polls_it_inline() {
    let runtime = runtime();
    for lane in both("blocks", |lane| lane.limit(1)) {
        let inner = lane.clone();
        let nested = lane.run(move || {
            let on = std::thread::current().id();
            let on_this_thread = async move {
                tokio::task::yield_now().await;
                std::thread::current().id() == on
            };
            futures::executor::block_on(on_this_thread.offloaded(&inner))
        });
        assert!(runtime.block_on(nested).unwrap().unwrap());
        assert_eq!(lane.stats().inline, 1);
        // A future on the lane may await the lane, because it holds no permit during the wait.
        let inner = lane.clone();
        let awaits = async move { inner.run(|| 7).await.unwrap() };
        assert_eq!(runtime.block_on(awaits.offloaded(&lane)).unwrap(), 7);
        assert_eq!(lane.stats().inline, 1);
    }
}

//! Lanes: limit and order, and all the ways in which a closure can end, on both kinds of threads.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::executor::block_on;
use futures::future::join_all;
use shotclock::offload::{Cancel, LaneBuilder};
use shotclock::{Lane, OffloadError};
use tokio::runtime::{Builder, Handle, Runtime};

fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

/// Makes a lane of each kind. Each test has its own names, because lanes of one name share counters.
fn both(name: &str, set_up: impl Fn(LaneBuilder) -> LaneBuilder) -> [Lane; 2] {
    let tokio = Lane::builder(format!("{name}, tokio"));
    let rayon = Lane::builder(format!("{name}, rayon")).rayon();
    [tokio, rayon].map(|builder| set_up(builder).build().unwrap())
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Blocks on a future inside another executor.
fn wait_for<F: Future>(future: F) -> F::Output {
    let (wake, woken) = mpsc::channel();
    let waker = futures::task::waker(Arc::new(Wake(wake)));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => woken.recv().unwrap(),
        }
    }
}

struct Wake(mpsc::Sender<()>);

impl futures::task::ArcWake for Wake {
    fn wake_by_ref(me: &Arc<Self>) {
        let _ = me.0.send(());
    }
}

/// Makes a closure that signals its begin, and ends when the gate opens.
struct Gate {
    starts: mpsc::Receiver<()>,
    #[expect(dead_code, reason = "held for its destructor")]
    open: mpsc::Sender<()>,
}

impl Gate {
    fn new() -> (Self, impl FnOnce() + Send + 'static) {
        let (started, starts) = mpsc::channel();
        let (open, gate) = mpsc::channel::<()>();
        let closure = move || {
            started.send(()).unwrap();
            let _ = gate.recv();
        };
        (Self { starts, open }, closure)
    }

    fn wait_for_start(&self) {
        self.starts.recv().unwrap();
    }
}

/// Holds a permit of the lane until the gate is dropped.
fn occupy(runtime: &Runtime, lane: &Lane) -> (Gate, tokio::task::JoinHandle<()>) {
    let (gate, closure) = Gate::new();
    let lane = lane.clone();
    let task = runtime.spawn(async move { lane.run(closure).await.unwrap() });
    gate.wait_for_start();
    (gate, task)
}

/// Waits until the counters are up to date, which may be after the result of the last closure.
fn wait_until(what: impl Fn() -> bool) {
    for _ in 0..60_000 {
        if what() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("it never came");
}

fn assert_whole(lane: &Lane) {
    wait_until(|| (lane.stats().running, lane.stats().queued) == (0, 0));
}

#[test]
fn build_with_an_invalid_limit_is_refused() {
    let error = Lane::builder("none").limit(0).build().unwrap_err();
    assert!(error.is_invalid_setting());
    assert!(error.to_string().contains("limit"), "{error}");
}

#[test]
fn lane_runs_in_order_within_its_limit() {
    let runtime = runtime();
    for lane in both("order", |lane| lane.limit(3)) {
        assert_eq!(lane.limit(), 3);
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let work = |_| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            lane.run(move || {
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                std::thread::yield_now();
                now.fetch_sub(1, SeqCst);
            })
        };
        let results = runtime.block_on(join_all((0..1_000).map(work)));
        assert!(results.iter().all(Result::is_ok));
        assert!((1..=3).contains(&most.load(SeqCst)));
        assert_whole(&lane);
    }
    for lane in both("first in, first out", |lane| lane.limit(1).queue(10)) {
        let (gate, task) = occupy(&runtime, &lane);
        let order = Arc::new(Mutex::new(Vec::new()));
        // More than the queue holds. The callers that wait for room are in order too.
        let work = |number| {
            let order = Arc::clone(&order);
            lane.run(move || order.lock().unwrap().push(number))
        };
        let all = join_all((0..100).map(work));
        drop(gate);
        runtime.block_on(all);
        runtime.block_on(task).unwrap();
        assert_eq!(*order.lock().unwrap(), Vec::from_iter(0..100));
    }
}

#[test]
fn full_queue_makes_run_wait_and_try_run_fail() {
    let runtime = runtime();
    let _entered = runtime.enter();
    for lane in both("full", |lane| lane.limit(1).queue(1)) {
        let (gate, task) = occupy(&runtime, &lane);
        let mut queued = pin!(lane.run(|| 1));
        assert!(poll_once(queued.as_mut()).is_pending());
        let mut waiting = pin!(lane.run(|| 2));
        assert!(poll_once(waiting.as_mut()).is_pending());
        assert_eq!((lane.stats().running, lane.stats().queued), (1, 1));

        let Err(error) = block_on(lane.try_run(|| 3)) else {
            panic!("there was a place")
        };
        assert!(matches!(error, OffloadError::QueueFull { .. }), "{error}");
        assert_eq!(error.lane(), lane.name());
        assert!(error.to_string().contains("full"), "{error}");
        assert_eq!(lane.stats().rejected, 1);

        drop(gate);
        assert_eq!(block_on(queued).unwrap(), 1);
        assert_eq!(block_on(waiting).unwrap(), 2);
        assert_eq!(block_on(lane.try_run(|| 3)).unwrap(), 3);
        runtime.block_on(task).unwrap();
    }
}

#[test]
fn closure_dropped_while_queued_never_runs() {
    let runtime = runtime();
    let _entered = runtime.enter();
    for lane in both("withdrawn", |lane| lane.limit(1).queue(1)) {
        let (gate, task) = occupy(&runtime, &lane);
        let ran = Arc::new(AtomicBool::new(false));
        let run = || {
            let ran = Arc::clone(&ran);
            lane.run(move || ran.store(true, SeqCst))
        };
        {
            let mut queued = pin!(run());
            assert!(poll_once(queued.as_mut()).is_pending());
            let mut waiting = pin!(run());
            assert!(poll_once(waiting.as_mut()).is_pending());
            assert_eq!(lane.stats().queued, 1);
            assert_eq!(Arc::strong_count(&ran), 3);
        }
        // The closures are dropped, and the queue has room.
        assert_eq!(Arc::strong_count(&ran), 1);
        assert_eq!(lane.stats().queued, 0);
        let mut next = pin!(lane.try_run(|| 1));
        assert!(poll_once(next.as_mut()).is_pending());
        drop(gate);
        assert_eq!(block_on(next).unwrap(), 1);
        runtime.block_on(task).unwrap();
        assert!(!ran.load(SeqCst));
    }
}

#[test]
fn running_closure_sees_its_cancellation() {
    let runtime = runtime();
    let _entered = runtime.enter();
    for lane in both("told", |lane| lane.limit(1)) {
        let (started, starts) = mpsc::channel();
        let (ended, end) = mpsc::channel();
        let until_cancelled = move |cancel: Cancel| {
            started.send(cancel.clone()).unwrap();
            while !cancel.is_cancelled() {
                std::thread::yield_now();
            }
            ended.send(()).unwrap();
        };
        {
            let mut running = pin!(lane.run_cancellable(until_cancelled));
            assert!(poll_once(running.as_mut()).is_pending());
            assert!(!starts.recv().unwrap().is_cancelled());
        }
        end.recv().unwrap();
        assert_whole(&lane);
        // A closure whose future was not dropped is not cancelled.
        assert!(!block_on(lane.run_cancellable(|cancel| cancel.is_cancelled())).unwrap());
    }
}

#[test]
fn cancel_all_cancels_queued_and_running_work() {
    let runtime = runtime();
    let _entered = runtime.enter();
    for lane in both("all", |lane| lane.limit(1).queue(5)) {
        let (started, starts) = mpsc::channel();
        let mut running = pin!(lane.run_cancellable(move |cancel| {
            started.send(()).unwrap();
            while !cancel.is_cancelled() {
                std::thread::yield_now();
            }
            "stopped"
        }));
        assert!(poll_once(running.as_mut()).is_pending());
        starts.recv().unwrap();
        let mut queued = pin!(lane.run(|| ()));
        assert!(poll_once(queued.as_mut()).is_pending());
        lane.cancel_all();
        let error = block_on(queued).unwrap_err();
        assert!(matches!(error, OffloadError::Cancelled { .. }), "{error}");
        assert_eq!(error.lane(), lane.name());
        assert_eq!(block_on(running).unwrap(), "stopped");
        // The lane stays open.
        assert_eq!(block_on(lane.run(|| 1)).unwrap(), 1);
        assert_whole(&lane);
    }
}

#[test]
fn panicking_closures_and_destructors_harm_no_other() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a destructor");
        }
    }
    let runtime = runtime();
    let _entered = runtime.enter();
    for lane in both("panics", |lane| lane.limit(1).queue(2)) {
        let Err(OffloadError::Panicked(panic)) = block_on(lane.run(|| panic!("page 7"))) else {
            panic!("it did not panic")
        };
        assert_eq!(panic.message(), Some("page 7"));
        assert_eq!(lane.stats().panics, 1);

        // A result without a caller.
        let (gate, closure) = Gate::new();
        {
            let mut bomb = pin!(lane.run(move || {
                closure();
                Bomb
            }));
            assert!(poll_once(bomb.as_mut()).is_pending());
            gate.wait_for_start();
        }
        drop(gate);
        // The caller runs the destructor of a withdrawn closure.
        let (gate, task) = occupy(&runtime, &lane);
        let bomb = Bomb;
        let mut queued = Box::pin(lane.run(move || {
            let _bomb = &bomb;
        }));
        assert!(poll_once(queued.as_mut()).is_pending());
        let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(queued)));
        assert!(dropped.is_err());
        // The lane runs the destructor of a cancelled one.
        let bomb = Bomb;
        let mut queued = pin!(lane.run(move || {
            let _bomb = &bomb;
        }));
        assert!(poll_once(queued.as_mut()).is_pending());
        lane.cancel_all();
        assert!(matches!(
            block_on(queued),
            Err(OffloadError::Cancelled { .. })
        ));
        drop(gate);
        runtime.block_on(task).unwrap();

        assert_eq!(block_on(lane.run(|| 1)).unwrap(), 1);
        assert_whole(&lane);
    }
}

#[test]
fn close_waits_for_accepted_work() {
    let runtime = runtime();
    let _entered = runtime.enter();
    for lane in both("drains", |lane| lane.limit(1).queue(1)) {
        let (gate, task) = occupy(&runtime, &lane);
        let mut queued = pin!(lane.run(|| 1));
        assert!(poll_once(queued.as_mut()).is_pending());
        let mut waiting = pin!(lane.run(|| 2));
        assert!(poll_once(waiting.as_mut()).is_pending());
        {
            let mut closing = pin!(lane.close());
            assert!(poll_once(closing.as_mut()).is_pending());
        }
        // The future is dropped, and the lane is still closed.
        for refused in [
            block_on(waiting),
            block_on(lane.run(|| 3)),
            block_on(lane.try_run(|| 4)),
        ] {
            assert!(
                matches!(refused, Err(OffloadError::Closed { .. })),
                "{refused:?}"
            );
        }
        assert_eq!(lane.stats().rejected, 3);
        drop(gate);
        block_on(lane.close());
        // Accepted closures have run.
        assert_eq!(block_on(queued).unwrap(), 1);
        runtime.block_on(task).unwrap();
        assert_whole(&lane);
    }
}

#[test]
fn close_inside_a_closure_returns() {
    let runtime = runtime();
    let _entered = runtime.enter();
    for lane in both("from within", |lane| lane.limit(1)) {
        let me = lane.clone();
        block_on(lane.run(move || wait_for(me.close()))).unwrap();
        assert!(matches!(
            block_on(lane.run(|| ())),
            Err(OffloadError::Closed { .. })
        ));
    }
}

#[test]
fn runtime_shutdown_with_queued_work_returns_closed() {
    for rounds in 0..20 {
        let lane = Lane::builder("shutdown").limit(1).build().unwrap();
        let runtime = runtime();
        let handle = runtime.handle().clone();
        let (gate, task) = occupy(&runtime, &lane);
        let ran = Arc::new(AtomicUsize::new(0));
        // The callers wait outside the runtime of the closures.
        let waiters: Vec<_> = (0..50)
            .map(|_| {
                let (lane, handle, ran) = (lane.clone(), handle.clone(), Arc::clone(&ran));
                std::thread::spawn(move || {
                    let _entered = handle.enter();
                    block_on(lane.run(move || {
                        ran.fetch_add(1, SeqCst);
                        std::thread::sleep(Duration::from_millis(1));
                    }))
                })
            })
            .collect();
        wait_until(|| lane.stats().queued == 50);
        if rounds % 2 == 0 {
            drop(task);
        }
        let down = std::thread::spawn(move || drop(runtime));
        drop(gate);
        down.join().unwrap();
        let results: Vec<_> = waiters.into_iter().map(|w| w.join().unwrap()).collect();
        let done = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!(done, ran.load(SeqCst));
        for error in results.into_iter().filter_map(Result::err) {
            assert!(matches!(error, OffloadError::Closed { .. }), "{error}");
        }
        // The lane works with another runtime.
        let next = self::runtime();
        assert_eq!(next.block_on(lane.run(|| 1)).unwrap(), 1);
        assert_whole(&lane);
    }
}

#[test]
fn closure_that_blocks_on_its_own_lane_runs_inline() {
    let runtime = runtime();
    let _entered = runtime.enter();
    for lane in both("itself", |lane| lane.limit(1).queue(0)) {
        let inner = lane.clone();
        let nested = lane.run(move || {
            let innermost = inner.clone();
            let on = std::thread::current().id();
            let result = wait_for(inner.run(move || {
                assert_eq!(std::thread::current().id(), on);
                wait_for(innermost.try_run(|| 7)).unwrap()
            }));
            result.unwrap()
        });
        assert_eq!(block_on(nested).unwrap(), 7);
        assert_eq!(lane.stats().inline, 2);
        assert_whole(&lane);
    }
    // With two lanes in a circle, and with `block_on` of the runtime.
    let [there, back] = ["there", "back"].map(|name| both(name, |lane| lane.limit(1)));
    let [tokio, rayon] = back;
    for [one, two] in [there, [rayon, tokio]] {
        let (a, b) = (one.clone(), two.clone());
        let handle = Handle::current();
        let circle = one.run(move || {
            let handle_inside = handle.clone();
            handle.block_on(b.run(move || handle_inside.block_on(a.run(|| 7))))
        });
        assert_eq!(block_on(circle).unwrap().unwrap().unwrap(), 7);
        assert_eq!((one.stats().inline, two.stats().inline), (1, 0));
    }
}

#[test]
fn closures_enter_the_runtime_and_rayon_needs_none() {
    let runtime = runtime();
    let [tokio, rayon] = both("runtime", |lane| lane);
    for lane in [&tokio, &rayon] {
        let id = runtime
            .block_on(lane.run(|| Handle::current().id()))
            .unwrap();
        assert_eq!(id, runtime.handle().id());
    }
    let error = block_on(tokio.run(|| ())).unwrap_err();
    assert!(matches!(error, OffloadError::NoRuntime { .. }), "{error}");
    assert_eq!(block_on(rayon.run(|| 1)).unwrap(), 1);

    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(3)
        .build()
        .unwrap();
    let pool = Arc::new(pool);
    let own = Lane::builder("own pool").rayon_pool(Arc::clone(&pool));
    let own = own.build().unwrap();
    assert_eq!(own.limit(), 3);
    let on_the_pool = move || pool.current_thread_index().is_some();
    assert!(block_on(own.run(on_the_pool)).unwrap());
}

#[test]
fn carry_hooks_run_and_lose_no_closure() {
    tokio::task_local! {
        static TENANT: u32;
    }
    let runtime = runtime();
    let _entered = runtime.enter();
    let carry = || {
        let tenant = TENANT.try_with(|tenant| *tenant);
        move |work: &mut dyn FnMut()| match tenant {
            Ok(tenant) => TENANT.sync_scope(tenant, work),
            Err(_) => work(),
        }
    };
    for lane in both("hooks", |lane| {
        lane.carry(carry).carry(|| |_: &mut dyn FnMut()| ())
    }) {
        // The second hook does not call the work.
        let seen = block_on(TENANT.scope(7, lane.run(|| TENANT.try_with(|tenant| *tenant).ok())));
        assert_eq!(seen.unwrap(), None);
    }
    for lane in both("hooks", |lane| {
        lane.carry(|| |work: &mut dyn FnMut()| work()).carry(carry)
    }) {
        let seen = block_on(TENANT.scope(7, lane.run(|| TENANT.get())));
        assert_eq!(seen.unwrap(), 7);
    }
    for lane in both("hooks", |lane| {
        lane.carry(|| |_: &mut dyn FnMut()| panic!("a hook"))
    }) {
        assert!(matches!(
            block_on(lane.run(|| ())),
            Err(OffloadError::Panicked(_))
        ));
        assert_whole(&lane);
    }
}

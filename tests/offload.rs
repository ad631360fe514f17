//! `offload`: its limit, and all the ways in which it can end.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::available_parallelism;

use shotclock::{OffloadError, offload};
use tokio::runtime::{Builder, Runtime};

/// The process has one such lane, so these tests take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn limit() -> usize {
    available_parallelism().unwrap().get()
}

#[test]
fn offload_returns_the_result() {
    let _turn = turn();
    assert_eq!(runtime().block_on(offload(|| 6 * 7)).unwrap(), 42);
}

#[test]
fn offload_runs_one_closure_for_each_core() {
    let _turn = turn();
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let work = || {
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        offload(move || {
            most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
            std::thread::yield_now();
            running.fetch_sub(1, SeqCst);
        })
    };
    let all = futures::future::join_all((0..2_000).map(|_| work()));
    assert!(runtime().block_on(all).iter().all(Result::is_ok));
    assert!((1..=limit()).contains(&most.load(SeqCst)), "{most:?}");
}

#[test]
fn offload_of_a_panicking_closure_returns_its_payload() {
    let _turn = turn();
    let page = std::hint::black_box(7);
    let error = runtime()
        .block_on(offload(move || -> () { panic!("page {page}") }))
        .unwrap_err();
    assert_eq!(error.lane(), "cpu");
    assert!(error.to_string().contains("page 7"), "{error}");
    let OffloadError::Panicked(panic) = error else {
        unreachable!()
    };
    assert_eq!(panic.message(), Some("page 7"));
    let resumed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| panic.resume()));
    let payload = resumed.unwrap_err();
    assert_eq!(payload.downcast_ref::<String>().unwrap(), "page 7");

    let odd = runtime().block_on(offload(|| -> () { std::panic::panic_any(7u8) }));
    let Err(OffloadError::Panicked(panic)) = odd else {
        unreachable!()
    };
    assert_eq!(panic.message(), None);
    assert_eq!(*panic.into_payload().downcast::<u8>().unwrap(), 7);
}

#[test]
fn offload_error_converts_into_other_error_types() {
    fn boxed(error: OffloadError) -> Box<dyn std::error::Error + Send + Sync> {
        error.into()
    }
    let error = futures::executor::block_on(offload(|| ())).unwrap_err();
    assert!(boxed(error).to_string().contains("no tokio runtime"));
}

#[test]
fn permit_stays_with_the_closure_of_a_dropped_future() {
    let _turn = turn();
    let runtime = runtime();
    let (started, starts) = mpsc::channel();
    let gates: Vec<_> = (0..limit()).map(|_| mpsc::channel::<()>()).collect();
    let mut open = Vec::new();
    for (gate, wait) in gates {
        let started = started.clone();
        let task = runtime.spawn(offload(move || {
            started.send(()).unwrap();
            let _ = wait.recv();
        }));
        starts.recv().unwrap();
        // The caller is gone, and the closure still runs and keeps its permit.
        task.abort();
        assert!(runtime.block_on(task).unwrap_err().is_cancelled());
        open.push(gate);
    }
    let (tx, rx) = mpsc::channel();
    let queued = runtime.spawn(offload(move || tx.send(()).unwrap()));
    // As many turns as it would need with a free permit.
    runtime.block_on(async {
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(rx.try_recv(), Err(mpsc::TryRecvError::Empty));
    open.pop();
    runtime.block_on(queued).unwrap().unwrap();
    assert_eq!(rx.try_recv(), Ok(()));
}

#[test]
fn queued_closure_of_a_dropped_future_never_runs() {
    let _turn = turn();
    let runtime = runtime();
    let (started, starts) = mpsc::channel();
    let mut gates = Vec::new();
    let mut running = Vec::new();
    for _ in 0..limit() {
        let (gate, wait) = mpsc::channel::<()>();
        let started = started.clone();
        running.push(runtime.spawn(offload(move || {
            started.send(()).unwrap();
            let _ = wait.recv();
        })));
        starts.recv().unwrap();
        gates.push(gate);
    }
    let (tx, rx) = mpsc::channel::<()>();
    let queued = runtime.spawn(offload(move || tx.send(()).unwrap()));
    queued.abort();
    assert!(runtime.block_on(queued).is_err());
    // The closure is dropped, with its end of the channel.
    assert_eq!(rx.recv(), Err(mpsc::RecvError));
    drop(gates);
    for task in running {
        runtime.block_on(task).unwrap().unwrap();
    }
}

#[test]
fn permit_of_a_panicking_closure_is_returned() {
    let _turn = turn();
    let runtime = runtime();
    for _ in 0..4 * limit() {
        assert!(runtime.block_on(offload(|| panic!("again"))).is_err());
    }
    assert_eq!(runtime.block_on(offload(|| 1)).unwrap(), 1);
}

#[test]
fn offload_after_a_runtime_shutdown_is_closed() {
    let _turn = turn();
    let runtime = runtime();
    let handle = runtime.handle().clone();
    drop(runtime);
    let _entered = handle.enter();
    let error = futures::executor::block_on(offload(|| ())).unwrap_err();
    assert!(matches!(error, OffloadError::Closed { .. }), "{error}");
    // Its permit is free again.
    drop(_entered);
    for _ in 0..2 * limit() {
        assert!(self::runtime().block_on(offload(|| ())).is_ok());
    }
}

#[test]
fn offload_without_threads_is_closed_and_keeps_its_permit() {
    let _turn = turn();
    // No system has room for a stack of this size.
    let runtime = Builder::new_current_thread()
        .thread_stack_size(1 << 47)
        .build()
        .unwrap();
    for _ in 0..2 * limit() {
        let error = runtime.block_on(offload(|| ())).unwrap_err();
        assert!(matches!(error, OffloadError::Closed { .. }), "{error}");
    }
    assert_eq!(self::runtime().block_on(offload(|| 1)).unwrap(), 1);
}

//! Models: code that loom runs in every interleaving, and with every value that a load may return.
//! `RUSTFLAGS="--cfg shotclock_loom" cargo test --release --lib models`
//!
//! # A model must be able to fail
//!
//! A model that holds proves something only if it fails without the operation that it defends. So each model runs again
//! with one [`Fault`] at a time, and must fail with the expected message:
//!
//! - [`Model::fails_with`] weakens one operation of the production code. A comment `model: NAME` at the end of the
//!   operation's line names it. Under loom each operation knows the line of its caller, and asks whether that line has
//!   the fault. So no operation has a name in the code, and builds without loom have no trace of the models.
//! - [`Model::fails`] is for a model that is itself wrong: it calls production code in a wrong order, or lies to it. It
//!   shows an order of steps that no single operation decides.
//!
//! A fault can also skip one look at a locked value, so a condition on that value needs no switch in the code.
//!
//! An order of two operations needs no proof beside that of their ordering. A `Release` store comes
//! after the stores that it publishes. An `Acquire` load comes before the loads that rely on it. In the wrong order, a reader
//! could see what it sees with the relaxed operation.
//!
//! # Why the models stand here
//!
//! They share a harness, and one condition (`test` under loom) covers all. The few items that only a model names from
//! outside of their module are `pub(crate)`.
//!
//! # What is left out
//!
//! `sys` is that of an unsupported platform. The threads of a model take their slots and give them back by hand, because
//! loom has no destructors of thread-locals. What the threads share is in an `Arc` of std's: loom cannot drop its own
//! after a deadlock. Atomics of std's keep notes for the assertions: loom does not see them.

mod coarse_clock;
mod markers;
mod offload_queue;
mod parking;
mod polls;
mod reporter_thread;
mod request_cell;
mod sampled;
mod slots;

use std::any::Any;
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Once};

use crate::sync::fault::{self, Fault, PlantedFault};

/// What loom says where every thread waits.
const DEADLOCK: &str = "deadlock";

thread_local! {
    /// Whether this thread checks a model that is to fail.
    static IS_TO_FAIL: Cell<bool> = const { Cell::new(false) };
}

/// Code for loom to run, and the number of preemptions in one run.
struct Model {
    run: Arc<dyn Fn() + Send + Sync>,
    preemptions: usize,
}

/// How a check ended.
struct Outcome {
    interleavings: usize,
    failure: Option<String>,
}

impl Model {
    /// Two preemptions find most faults.
    fn new(run: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            run: Arc::new(run),
            preemptions: 2,
        }
    }

    fn preemptions(mut self, preemptions: usize) -> Self {
        self.preemptions = preemptions;
        self
    }

    /// Asserts that no interleaving fails.
    fn holds(self) -> Self {
        let Outcome {
            interleavings,
            failure,
        } = self.check(None, false);
        assert_eq!(failure, None, "in interleaving {interleavings}");
        println!("holds in {interleavings} interleavings");
        self
    }

    /// Asserts that an interleaving fails by `why` if the operation at the marked line has the fault.
    fn fails_with(self, fault: Fault, marker: &str, why: &str) -> Self {
        let (file, line) = markers::find(marker);
        let planted = PlantedFault::new(fault, file, line);
        let outcome = self.check(Some(planted.clone()), true);
        assert!(planted.has_run(), "the model runs nothing: {planted}");
        outcome.assert_failed(&format!("{marker}: {planted}"), why);
        self
    }

    /// Asserts that an interleaving fails by `why`.
    fn fails(self, why: &str) {
        self.check(None, true).assert_failed("the wrong model", why);
    }

    fn check(&self, planted: Option<PlantedFault>, is_to_fail: bool) -> Outcome {
        silence_expected_panics();
        let (run, runs) = (Arc::clone(&self.run), Arc::new(AtomicUsize::new(0)));
        let counter = Arc::clone(&runs);
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(self.preemptions);
        // In a new thread, because loom keeps a failed model in the thread that checks it.
        let checked = std::thread::spawn(move || {
            IS_TO_FAIL.set(is_to_fail);
            fault::plant(planted);
            builder.check(move || {
                counter.fetch_add(1, Relaxed);
                run();
            });
        });
        Outcome {
            failure: checked.join().err().map(|payload| text_of(&*payload)),
            interleavings: runs.load(Relaxed),
        }
    }
}

impl Outcome {
    fn assert_failed(self, model: &str, why: &str) {
        let Self {
            interleavings,
            failure,
        } = self;
        let Some(failure) = failure else {
            panic!("{model}: holds in {interleavings} interleavings");
        };
        assert!(failure.contains(why), "{model}: fails with {failure:?}");
        println!("{model}: fails in interleaving {interleavings}: {failure}");
    }
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_default()
}

fn silence_expected_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !IS_TO_FAIL.get() {
                hook(info);
            }
        }));
    });
}

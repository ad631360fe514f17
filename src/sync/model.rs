//! How a model is checked: that it holds, and that it fails without what it is there to defend.
//!
//! What the threads of a model share is in an `Arc` of std's: loom's own cannot be dropped where a model has
//! failed by a deadlock.

use std::any::Any;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Once};

use super::broken::BROKEN;

/// Code that is run in every interleaving, and with every value that a load may give, up to a number of
/// preemptions.
pub(crate) struct Model {
    run: Arc<dyn Fn() + Send + Sync>,
    preemptions: usize,
}

impl Model {
    /// With at most 2 preemptions in a run, which is where most faults are found.
    pub(crate) fn new(run: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            run: Arc::new(run),
            preemptions: 2,
        }
    }

    pub(crate) fn preemptions(mut self, preemptions: usize) -> Self {
        self.preemptions = preemptions;
        self
    }

    /// It does not fail.
    pub(crate) fn holds(self) -> Self {
        let (runs, failure) = self.check(None);
        println!("holds in {runs} interleavings");
        assert!(failure.is_none(), "in the last of {runs}: {failure:?}");
        self
    }

    /// It fails without what is named, and so that the message has `why` in it: not by accident.
    pub(crate) fn fails_without(self, name: &'static str, why: &str) -> Self {
        let (runs, failure) = self.check(Some(name));
        let failure = failure
            .unwrap_or_else(|| panic!("without {name} it holds as well, in {runs} interleavings"));
        assert!(
            failure.contains(why),
            "without {name} it fails by {failure:?}"
        );
        println!("without {name} it fails in interleaving {runs}: {failure}");
        self
    }

    /// How often it was run, and with what it failed.
    fn check(&self, broken: Option<&'static str>) -> (usize, Option<String>) {
        be_silent_about_what_is_to_fail();
        let (run, runs) = (Arc::clone(&self.run), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&runs);
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(self.preemptions);
        // A thread of its own: loom keeps a model that failed in the thread that checks it.
        let checked = std::thread::spawn(move || {
            BROKEN.set(broken);
            builder.check(move || {
                counted.fetch_add(1, Relaxed);
                run();
            });
        });
        let failure = checked.join().err().map(|payload| text_of(&*payload));
        (runs.load(Relaxed), failure)
    }
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_default()
}

fn be_silent_about_what_is_to_fail() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if BROKEN.get().is_none() {
                hook(info);
            }
        }));
    });
}

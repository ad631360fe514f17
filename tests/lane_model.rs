//! Compares a lane with a model, over random schedules of run, cancel, drop, panic and close. No closure is lost or runs twice,
//! and all permits are free at the end.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;
use shotclock::offload::Cancel;
use shotclock::{Lane, OffloadError};

const LIMIT: usize = 2;
const QUEUE: usize = 2;

#[derive(Clone, Copy, Debug)]
enum Step {
    Run,
    TryRun,
    RunCancellable,
    /// The next variants name one of the closures so far.
    Finish(usize),
    Panic(usize),
    Drop(usize),
    CancelAll,
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Run),
        2 => Just(Step::TryRun),
        3 => Just(Step::RunCancellable),
        5 => (0..64usize).prop_map(Step::Finish),
        2 => (0..64usize).prop_map(Step::Panic),
        3 => (0..64usize).prop_map(Step::Drop),
        1 => Just(Step::CancelAll),
    ]
}

fn schedule() -> impl Strategy<Value = Vec<Step>> {
    let end = prop_oneof![Just(None), Just(Some(Step::Close))];
    let steps = proptest::collection::vec(step(), 1..30);
    (steps, end, proptest::collection::vec(step(), 0..5)).prop_map(|(mut steps, close, after)| {
        steps.extend(close);
        steps.extend(after);
        steps
    })
}

/// The fate of a closure.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Finished,
    /// The test ended it.
    Stopped,
    Panicked,
    Full,
    Cancelled,
    Closed,
}

/// The place of a closure.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    /// Waits for room in the queue.
    Waits,
    Queued,
    Runs,
    Over,
}

type Asked = Pin<Box<dyn Future<Output = Result<Fate, OffloadError>>>>;

struct Closure {
    at: At,
    /// The expected result, as soon as it is certain.
    fate: Option<Fate>,
    is_cancellable: bool,
    /// `None` once the caller has dropped it, or has its result.
    future: Option<Asked>,
    starts: Arc<AtomicUsize>,
    has_started: bool,
    /// Whether the closure panics.
    command: mpsc::Sender<bool>,
}

/// The lane and its model.
struct Play {
    lane: Lane,
    closures: Vec<Closure>,
    is_closed: bool,
}

fn body(starts: &AtomicUsize, commands: &mpsc::Receiver<bool>, cancel: Option<&Cancel>) -> Fate {
    starts.fetch_add(1, SeqCst);
    loop {
        match commands.recv_timeout(Duration::from_millis(1)) {
            Ok(true) => std::panic::panic_any("as told"),
            Ok(false) => return Fate::Finished,
            Err(_) if cancel.is_some_and(Cancel::is_cancelled) => return Fate::Stopped,
            Err(_) => {}
        }
    }
}

impl Play {
    fn take(&mut self, step: Step) {
        match step {
            Step::Run | Step::TryRun | Step::RunCancellable => self.send(step),
            Step::Finish(which) => self.end(which, false),
            Step::Panic(which) => self.end(which, true),
            Step::Drop(which) => self.drop_caller(which),
            Step::CancelAll => self.cancel_all(),
            Step::Close => self.close(),
        }
        self.settle();
        self.compare();
    }

    fn count(&self, at: At) -> usize {
        self.closures
            .iter()
            .filter(|closure| closure.at == at)
            .count()
    }

    fn send(&mut self, step: Step) {
        let (command, commands) = mpsc::channel();
        let starts = Arc::<AtomicUsize>::default();
        let (lane, counted) = (self.lane.clone(), Arc::clone(&starts));
        let is_cancellable = matches!(step, Step::RunCancellable);
        let future: Asked = match step {
            Step::Run => {
                Box::pin(async move { lane.run(move || body(&counted, &commands, None)).await })
            }
            Step::TryRun => {
                Box::pin(async move { lane.try_run(move || body(&counted, &commands, None)).await })
            }
            _ => Box::pin(async move {
                let closure = move |cancel: Cancel| body(&counted, &commands, Some(&cancel));
                lane.run_cancellable(closure).await
            }),
        };
        let is_full =
            self.count(At::Waits) + self.count(At::Queued) + self.count(At::Runs) >= LIMIT + QUEUE;
        let (at, fate) = match step {
            _ if self.is_closed => (At::Over, Some(Fate::Closed)),
            Step::TryRun if is_full => (At::Over, Some(Fate::Full)),
            _ => (At::Waits, None),
        };
        self.closures.push(Closure {
            at,
            fate,
            is_cancellable,
            future: Some(future),
            starts,
            has_started: false,
            command,
        });
    }

    fn end(&mut self, which: usize, panics: bool) {
        let running = self
            .closures
            .iter_mut()
            .filter(|closure| closure.at == At::Runs);
        let running: Vec<_> = running.collect();
        let count = running.len();
        let Some(closure) = running.into_iter().nth(which % count.max(1)) else {
            return;
        };
        closure.command.send(panics).unwrap();
        closure.at = At::Over;
        closure.fate = Some(if panics {
            Fate::Panicked
        } else {
            Fate::Finished
        });
    }

    fn drop_caller(&mut self, which: usize) {
        let waiting = self
            .closures
            .iter_mut()
            .filter(|closure| closure.future.is_some());
        let waiting: Vec<_> = waiting.collect();
        let count = waiting.len();
        let Some(closure) = waiting.into_iter().nth(which % count.max(1)) else {
            return;
        };
        closure.future = None;
        if closure.at != At::Runs || closure.is_cancellable {
            closure.at = At::Over;
        }
    }

    fn cancel_all(&mut self) {
        self.lane.cancel_all();
        for closure in &mut self.closures {
            let fate = match closure.at {
                At::Waits | At::Queued => Fate::Cancelled,
                At::Runs if closure.is_cancellable => Fate::Stopped,
                _ => continue,
            };
            (closure.at, closure.fate) = (At::Over, Some(fate));
        }
    }

    fn close(&mut self) {
        self.is_closed = true;
        let mut closing = Box::pin(self.lane.close());
        let _ = closing
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        for closure in &mut self.closures {
            if closure.at == At::Waits {
                (closure.at, closure.fate) = (At::Over, Some(Fate::Closed));
            }
        }
    }

    /// Advances the model until nothing changes.
    fn settle(&mut self) {
        for index in 0..self.closures.len() {
            let has_place = self.count(At::Queued) + self.count(At::Runs) < LIMIT + QUEUE;
            if self.closures[index].at == At::Waits && has_place {
                self.closures[index].at = At::Queued;
            }
        }
        for index in 0..self.closures.len() {
            if self.closures[index].at == At::Queued && self.count(At::Runs) < LIMIT {
                self.closures[index].at = At::Runs;
                self.closures[index].has_started = true;
            }
        }
    }

    /// Polls all callers until the lane agrees with the model.
    fn compare(&mut self) {
        for _ in 0..60_000 {
            self.poll_all();
            if self.is_there() {
                return;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        let expected: Vec<_> = self.closures.iter().map(|c| (c.at, c.fate)).collect();
        panic!("{:?} and not {expected:?}", self.lane.stats());
    }

    fn poll_all(&mut self) {
        for closure in &mut self.closures {
            let Some(future) = &mut closure.future else {
                continue;
            };
            let polled = future
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()));
            if let Poll::Ready(result) = polled {
                closure.future = None;
                let fate = match result {
                    Ok(fate) => fate,
                    Err(OffloadError::Panicked(_)) => Fate::Panicked,
                    Err(OffloadError::QueueFull { .. }) => Fate::Full,
                    Err(OffloadError::Cancelled { .. }) => Fate::Cancelled,
                    Err(OffloadError::Closed { .. }) => Fate::Closed,
                    Err(other) => panic!("{other}"),
                };
                assert_eq!(Some(fate), closure.fate);
            }
        }
    }

    fn is_there(&self) -> bool {
        let stats = self.lane.stats();
        let is_there = |closure: &Closure| {
            let starts = closure.starts.load(SeqCst);
            assert!(
                starts <= usize::from(closure.has_started),
                "run without a place, or twice"
            );
            let is_answered = closure.fate.is_none() || closure.future.is_none();
            starts == usize::from(closure.has_started) && is_answered
        };
        [stats.running, stats.queued, stats.waiting]
            == [At::Runs, At::Queued, At::Waits].map(|at| self.count(at))
            && self.closures.iter().all(is_there)
    }

    /// Ends all closures, and checks that all permits are free.
    fn end_all(&mut self) {
        while self.count(At::Over) < self.closures.len() {
            self.take(Step::Finish(0));
        }
        if self.is_closed {
            return;
        }
        for _ in 0..LIMIT + QUEUE {
            self.take(Step::TryRun);
        }
        assert_eq!(
            (self.count(At::Runs), self.count(At::Queued)),
            (LIMIT, QUEUE)
        );
        self.take(Step::TryRun);
        assert_eq!(self.closures.last().unwrap().fate, Some(Fate::Full));
        while self.count(At::Over) < self.closures.len() {
            self.take(Step::Finish(0));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, max_shrink_iters: 4, ..ProptestConfig::default() })]

    #[test]
    fn lane_under_random_operations_agrees_with_its_model(steps in schedule(), rayon in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let _entered = runtime.enter();
        let lane = Lane::builder("model").limit(LIMIT).queue(QUEUE);
        let lane = if rayon { lane.rayon() } else { lane };
        let mut play = Play { lane: lane.build().unwrap(), closures: Vec::new(), is_closed: false };
        for step in steps {
            play.take(step);
        }
        play.end_all();
    }
}

//! Nested polls under the real clock: no poll is ticked under a mocked one.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::Input;
use crate::{Stacks, Timing, Watch, WatchExt as _, WatchStats, Watchdog};

thread_local! {
    /// Kept for all inputs, because the ticker of a new watchdog does not tick at once.
    static WATCHES: [Watch; 2] = [Timing::Exact, Timing::Ticked].map(watch);
}

fn watch(timing: Timing) -> Watch {
    let builder = Watchdog::builder().without_tracing().stacks(Stacks::Never);
    let watchdog = builder.timing(timing).build();
    let watchdog = watchdog.expect("the settings are good");
    watchdog.watch("polls")
}

/// Runs nested polls. Each one counts once, whatever its timing, its budget and the polls around it.
pub(super) fn nested(input: &mut Input<'_>) {
    WATCHES.with(|watches| {
        let before = watches.each_ref().map(Watch::stats);
        let mut counts = [0; 2];
        for _ in 0..input.below(8) {
            let is_pending = input.flag();
            let chain: Vec<_> = (0..input.below(24)).map(|_| link(input)).collect();
            for (timing, _) in &chain {
                counts[*timing] += 1 + u64::from(is_pending);
            }
            let chain = chain.iter().map(|(timing, budget)| match budget {
                Some(budget) => watches[*timing].with_budget(*budget),
                None => watches[*timing].clone(),
            });
            run(wrapped(Innermost { is_pending }, chain));
        }
        for ((watch, before), count) in watches.iter().zip(&before).zip(counts) {
            assert_counted(&watch.stats(), before, count);
        }
    });
}

/// Takes the index of a watch, and a budget if the poll has its own.
fn link(input: &mut Input<'_>) -> (usize, Option<Duration>) {
    let timing = input.below(2);
    (timing, input.flag().then(|| input.duration()))
}

fn assert_counted(stats: &WatchStats, before: &WatchStats, count: u64) {
    assert_eq!(stats.polls, before.polls + count);
    assert_eq!(stats.in_flight, 0);
    assert_eq!(stats.panicked_polls, 0);
    let counted = stats.histogram().map(|(_, count)| count);
    assert_eq!(counted.sum::<u64>(), stats.polls);
    assert!(stats.slow_polls - before.slow_polls <= count);
}

type Boxed = Pin<Box<dyn Future<Output = ()>>>;

fn wrapped(innermost: Innermost, chain: impl Iterator<Item = Watch>) -> Boxed {
    let innermost: Boxed = Box::pin(innermost);
    chain.fold(innermost, |inner, watch| Box::pin(inner.watched(&watch)))
}

fn run(mut future: Boxed) {
    let mut context = Context::from_waker(Waker::noop());
    while future.as_mut().poll(&mut context).is_pending() {}
}

/// A future that is ready at its first poll, or at its second.
struct Innermost {
    is_pending: bool,
}

impl Future for Innermost {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        match std::mem::take(&mut self.is_pending) {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    }
}

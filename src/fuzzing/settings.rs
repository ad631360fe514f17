//! Settings: the crate refuses a value, or works with it.

use std::cell::LazyCell;
use std::collections::BTreeSet;
use std::future::Future as _;
use std::num::NonZero;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::runtime::Runtime;

use super::Input;
use crate::clock::{Clock, MockTime};
use crate::{Escalation, Lane, SlowPoll, Stacks, Timing, Watch, Watchdog};
use crate::{allow_blocking, yield_after, yield_every};

thread_local! {
    static RUNTIME: LazyCell<Runtime> = LazyCell::new(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime can be built")
    });
}

/// Builds a watchdog, watches, a lane and a pace with any settings, and runs polls.
pub fn settings(data: &[u8]) {
    let mut input = Input::new(data);
    watchdog(&mut input);
    lane(&mut input);
    pace(&mut input);
    super::polls::nested(&mut input);
}

struct Settings {
    budget: Duration,
    guard_budget: Duration,
    max_watches: usize,
    report_queue: usize,
    per_second: u32,
}

impl Settings {
    fn new(input: &mut Input<'_>) -> Self {
        Self {
            budget: input.duration(),
            guard_budget: input.duration(),
            max_watches: match input.flag() {
                true => input.below(4),
                false => input.number() as usize,
            },
            // Rarely any size: the queue allocates all of it.
            report_queue: match input.below(32) {
                0 => input.number() as usize,
                _ => input.below(300),
            },
            per_second: input.number() as u32,
        }
    }

    fn are_good(&self) -> bool {
        !self.budget.is_zero()
            && self.guard_budget.as_millis() >= 10
            && self.max_watches != 0
            && NonZero::new(self.report_queue).is_some_and(|queue| queue.get() <= 1_048_576)
    }
}

/// Takes a signal. A process has one handler, and in the plain tests other tests need it for the usual signal.
fn signal(input: &mut Input<'_>) -> i32 {
    let any = input.u32() as i32;
    if cfg!(test) {
        crate::sys::CAPTURE_SIGNAL
    } else {
        any
    }
}

fn watchdog(input: &mut Input<'_>) {
    let settings = Settings::new(input);
    let (clock, time) = Clock::mock();
    let reports = Arc::new(AtomicU32::new(0));
    let count = {
        let reports = Arc::clone(&reports);
        move |_: &SlowPoll| {
            reports.fetch_add(1, Relaxed);
        }
    };
    let mut builder = Watchdog::builder()
        .without_tracing()
        .clock(clock)
        .budget(settings.budget)
        .guard_budget(settings.guard_budget)
        .max_watches(settings.max_watches)
        .report_queue(settings.report_queue)
        .reports_per_second(settings.per_second)
        .max_contained(input.number() as usize)
        .stack_signal(signal(input))
        .stacks([Stacks::Never, Stacks::Auto, Stacks::Always][input.below(3)])
        .timing([Timing::Exact, Timing::Ticked][input.below(2)])
        .on_slow_poll(count);
    for _ in 0..input.below(3) {
        let step = match input.flag() {
            true => Escalation::Stacks,
            false => Escalation::call(|_| ()),
        };
        builder = builder.escalate(input.duration(), step);
    }
    if input.flag() {
        builder = builder.contain();
    }
    let built = builder.build();
    assert_eq!(built.is_ok(), settings.are_good(), "{:?}", built.err());
    let Ok(watchdog) = built else {
        return;
    };
    assert_names(input, &watchdog, settings.max_watches);
    let watch = watchdog.watch("polled");
    let watch = match input.flag() {
        true => watch.with_budget(input.duration()),
        false => watch,
    };
    let elapsed = input.number() >> 2;
    let (is_slow, is_allowed) = assert_counts(input, &watch, &time, elapsed);
    assert!(
        watchdog.flush(Duration::from_secs(60)),
        "the reporter did not come"
    );
    let expected = u32::from(is_slow && settings.per_second > 0);
    let reports = reports.load(Relaxed);
    let is_left_out = is_allowed && reports == 0;
    assert!(
        reports == expected || is_left_out,
        "{elapsed} of {:?}",
        watch.budget()
    );
}

/// Asserts that names have their own watches up to the limit, and share one beyond it.
fn assert_names(input: &mut Input<'_>, watchdog: &Watchdog, limit: usize) {
    let mut known = BTreeSet::new();
    for _ in 0..input.below(6) {
        let name = input.name();
        let watch = watchdog.watch(name.clone());
        let name = if name.is_empty() {
            "unnamed".into()
        } else {
            name
        };
        let own = known.iter().filter(|name| *name != "other").count();
        let is_own = known.contains(&name) || own < limit || name == "other";
        let expected = if is_own { name } else { "other".into() };
        assert_eq!(watch.name(), expected);
        known.insert(expected);
    }
    assert_eq!(watchdog.snapshot().iter().count(), known.len());
}

/// Asserts that a poll counts once, and as slow if it took longer than its budget. Returns whether it was slow, and
/// whether it was allowed to block.
fn assert_counts(
    input: &mut Input<'_>,
    watch: &Watch,
    time: &MockTime,
    elapsed: u64,
) -> (bool, bool) {
    let is_allowed = input.below(4) == 0;
    let before = watch.stats();
    {
        let _allowed = is_allowed.then(|| allow_blocking(input.name(), input.duration()));
        let _poll = watch.enter();
        time.increment(Duration::from_nanos(elapsed));
    }
    let stats = watch.stats();
    let is_slow = u128::from(elapsed) > watch.budget().as_nanos();
    assert_eq!(stats.polls, before.polls + 1);
    assert_eq!(stats.slow_polls, before.slow_polls + u64::from(is_slow));
    assert_eq!(stats.longest, Duration::from_nanos(elapsed));
    assert_eq!(
        stats.histogram().map(|(_, count)| count).sum::<u64>(),
        stats.polls
    );
    let quantile = stats.quantile(f64::from_bits(input.u64()));
    assert!(quantile.is_none_or(|quantile| quantile <= stats.longest));
    (is_slow, is_allowed)
}

fn lane(input: &mut Input<'_>) {
    let name = input.name();
    let limit = input.flag().then(|| input.number() as usize);
    let queue = input.flag().then(|| input.number() as usize);
    let mut builder = Lane::builder(name.clone());
    if let Some(limit) = limit {
        builder = builder.limit(limit);
    }
    if let Some(queue) = queue {
        builder = builder.queue(queue);
    }
    let built = builder.build();
    assert_eq!(built.is_ok(), limit != Some(0));
    let Ok(lane) = built else {
        return;
    };
    let own = if name.is_empty() { "unnamed" } else { &*name };
    // Earlier inputs may have used up the thousand names of lanes.
    assert!([own, "other"].contains(&lane.name()), "{:?}", lane.name());
    assert!(limit.is_none_or(|limit| limit == lane.limit()) && lane.limit() > 0);
    let seven = RUNTIME.with(|runtime| runtime.block_on(lane.try_run(|| 7)));
    assert!(matches!(seven, Ok(7)), "{seven:?}");
}

fn pace(input: &mut Input<'_>) {
    // 0 panics, as documented.
    let every = input.number().max(1);
    let mut context = Context::from_waker(Waker::noop());
    let mut by_count = yield_every(every);
    let mut yields = 0;
    for _ in 0..8 {
        let mut tick = pin!(by_count.tick());
        while tick.as_mut().poll(&mut context).is_pending() {
            yields += 1;
            assert!(yields <= 8, "it yields once, and then it is done");
        }
    }
    assert_eq!(yields, 8 / every, "every {every}");
    let mut by_time = yield_after(input.duration());
    for _ in 0..8 {
        let _ = pin!(by_time.tick()).poll(&mut context);
        let _ = by_time.is_due();
    }
}

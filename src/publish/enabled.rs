//! The metrics thread, and one batch of it.
//!
//! Handles of the facade that are taken before a recorder is installed stay dead for ever. So none
//! is kept: every batch asks the recorder of the moment for its handles, and sets counters to their
//! absolute value. Whichever comes first, recorder or watchdog, nothing is missing; and a second
//! batch, made by somebody else at the same time, does no harm.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use metrics::Recorder;

use super::series::{self, METADATA, key};
use crate::catch_panic::catch_panic;
use crate::counters::{
    CulpritCount, LaneCounters, RuntimeCounters, all_lanes, all_runtimes, culprits,
};
use crate::error::Error;
use crate::histogram::PUBLISHED_BOUNDS_NANOS;
use crate::pending_durations::{Held, LeftOver, Samples, Series, SeriesRef};
use crate::service_thread;
use crate::sync::Lock;
use crate::sync::thread::Thread;
use crate::sys;
use crate::watch::{Aggregate, Registry, Totals, WatchCounters, WatchSums, aggregate};

const NAME: &str = "shotclock-metrics";
/// A tenth of the usual scrape interval or less: what is scraped is at most this old.
const INTERVAL: Duration = Duration::from_secs(1);

/// How many values that did not fit one series records in a batch: the facade's `record_many` is a
/// loop, and an exporter keeps each value until the next scrape.
const AT_ONCE: u64 = 10_000;

static SAMPLES: LazyLock<Samples> = LazyLock::new(Samples::new);
static THREAD: OnceLock<Thread> = OnceLock::new();
static STARTING: Lock<()> = Lock::new(());
static BUCKETS_AS_COUNTERS: AtomicBool = AtomicBool::new(false);

/// Starts the metrics thread if it does not run yet. It runs as long as the process.
pub(crate) fn start() -> Result<(), Error> {
    // Else the first slow poll would have to make room for it, which is 128 KiB, on its worker's time.
    LazyLock::force(&SAMPLES);
    let _one_at_a_time = STARTING.lock();
    if THREAD.get().is_none() {
        let thread = service_thread::spawn(NAME, run)?;
        THREAD.get_or_init(|| thread);
    }
    Ok(())
}

fn run() {
    loop {
        publish();
        std::thread::park_timeout(INTERVAL);
    }
}

/// Counts the registry into everything that is published from now on.
pub(crate) fn register(registry: &Arc<Registry>) {
    crate::watch::register(registry);
}

/// From now on the distribution goes through the facade, as counters.
pub(crate) fn publish_buckets_as_counters() {
    BUCKETS_AS_COUNTERS.store(true, Relaxed);
}

/// Whether the distribution goes through the facade, so that it must not be rendered as well.
pub(crate) fn buckets_are_counters() -> bool {
    BUCKETS_AS_COUNTERS.load(Relaxed)
}

pub(crate) fn slow_poll(counters: &WatchCounters, nanos: u64) {
    sample(
        SeriesRef::Shared(Arc::clone(&counters.slow_durations)),
        nanos,
    );
}

/// Hands a single duration over. Never waits.
pub(crate) fn sample(series: SeriesRef, nanos: u64) {
    if SAMPLES.push(series, nanos) {
        if let Some(thread) = THREAD.get() {
            thread.unpark();
        }
    }
}

/// One batch at a time; and what an exporter takes up, it takes up between two. It keeps durations in
/// blocks that lose what comes in at the moment when they are emptied.
static ONE_AT_A_TIME: Lock<()> = Lock::new(());

/// Publishes one batch on the calling thread, and returns what was in it.
pub(crate) fn publish() -> Aggregate {
    publish_and(|| ()).0
}

/// Publishes one batch, and does something before the next one begins.
///
/// A recorder that panics loses this batch; the next one brings the same totals.
pub(crate) fn publish_and<T>(after: impl FnOnce() -> T) -> (Aggregate, T) {
    let _batch = ONE_AT_A_TIME.lock();
    let sums = aggregate();
    // In the child of a fork a recorder may wait for a lock of its own for ever.
    if !sys::is_forked() {
        catch_panic(|| {
            metrics::with_recorder(|recorder| {
                Batch { recorder }.publish(&sums);
            });
        });
    }
    let done = after();
    (sums, done)
}

/// Does something while there is no batch.
#[cfg(feature = "prometheus")]
pub(crate) fn between_batches<T>(what: impl FnOnce() -> T) -> T {
    let _batch = ONE_AT_A_TIME.lock();
    what()
}

struct Batch<'r> {
    recorder: &'r dyn Recorder,
}

impl Batch<'_> {
    fn publish(&self, sums: &Aggregate) {
        series::describe(self.recorder);
        self.reports(sums);
        self.gauge(
            series::OLDEST_STALL,
            [],
            sums.oldest_stall_nanos as f64 / 1e9,
        );
        for (name, watch) in &sums.watches {
            self.watch(name, watch);
        }
        if buckets_are_counters() {
            series::describe_buckets(self.recorder);
            for (name, watch) in &sums.watches {
                self.buckets(name, &watch.totals);
            }
            culprits().iter().for_each(|count| self.culprit(count));
        }
        let (lanes, runtimes) = (all_lanes(), all_runtimes());
        lanes.iter().for_each(|lane| self.lane(lane));
        runtimes.iter().for_each(|runtime| self.runtime(runtime));
        if is_installed(self.recorder) {
            let of_lanes = lanes.iter().flat_map(|lane| [lane.wait, lane.run]);
            let of_runtimes = runtimes.iter().map(|runtime| runtime.lag);
            self.samples(sums, of_lanes.chain(of_runtimes));
        }
    }

    fn reports(&self, sums: &Aggregate) {
        self.counter(series::DROPPED, [], sums.unreported.dropped.load(Relaxed));
        let suppressed = |reason, counter: &std::sync::atomic::AtomicU64| {
            self.counter(
                series::SUPPRESSED,
                [("reason", reason)],
                counter.load(Relaxed),
            );
        };
        suppressed("rate_limit", &sums.unreported.rate_limited);
        suppressed("reporter_thread", &sums.unreported.reentrant);
        suppressed("allowed", &sums.unreported.allowed);
        suppressed("suspended", &sums.unreported.suspended);
        suppressed("busy_host", &sums.unreported.starved);
        suppressed("cpu_limit", &sums.unreported.throttled);
    }

    fn watch(&self, name: &str, sums: &WatchSums) {
        let (watch, totals) = ([("watch", name)], &sums.totals);
        self.counter(series::POLLS, watch, totals.distribution.count());
        for (cause, count) in totals.slow_by_cause() {
            let slow = [("watch", name), ("cause", cause)];
            self.counter(series::SLOW_POLLS, slow, count);
        }
        self.counter(series::PANICKED_POLLS, watch, totals.panicked);
        self.counter(series::CONTAINED_POLLS, watch, totals.contained);
        self.gauge(series::POLLS_IN_FLIGHT, watch, sums.in_flight as f64);
        self.gauge(series::STALLS_IN_FLIGHT, watch, sums.stalls as f64);
        self.present("shotclock_slow_poll_duration_seconds", watch);
    }

    fn buckets(&self, name: &str, totals: &Totals) {
        let distribution = &totals.distribution;
        for bound in PUBLISHED_BOUNDS_NANOS {
            let le = series::seconds(bound);
            let labels = [("watch", name), ("le", &*le)];
            self.counter(series::BUCKET, labels, distribution.at_most(bound));
        }
        let count = distribution.count();
        self.counter(series::BUCKET, [("watch", name), ("le", "+Inf")], count);
        self.counter(series::COUNT, [("watch", name)], count);
        let busy = [("watch", name)];
        self.counter(series::BUSY_MICROSECONDS, busy, totals.busy / 1_000);
    }

    fn culprit(&self, count: &CulpritCount) {
        let labels = [("watch", &*count.watch), ("culprit", &*count.culprit)];
        let micros = count.over_budget / 1_000;
        self.counter(series::CULPRIT_MICROSECONDS, labels, micros);
    }

    fn lane(&self, lane: &LaneCounters) {
        let label = [("lane", &*lane.name)];
        self.gauge(
            series::OFFLOAD_IN_FLIGHT,
            label,
            lane.in_flight.load(Relaxed) as f64,
        );
        let queued = lane.queued.load(Relaxed);
        self.gauge(series::OFFLOAD_QUEUED, label, queued as f64);
        self.counter(series::OFFLOAD_REJECTED, label, lane.rejected.load(Relaxed));
        self.counter(series::OFFLOAD_PANICS, label, lane.panics.load(Relaxed));
        self.counter(series::OFFLOAD_INLINE, label, lane.inline.load(Relaxed));
        self.present(lane.wait.name, label);
        self.present(lane.run.name, label);
    }

    fn runtime(&self, runtime: &RuntimeCounters) {
        let label = [("runtime", &*runtime.name)];
        let stuck = runtime.stuck.load(Relaxed);
        self.gauge(series::STUCK_WORKERS, label, stuck as f64);
        let busy = runtime.busy.load(Relaxed);
        self.gauge(series::BUSY_WORKERS, label, busy as f64);
        self.counter(series::WORKER_STALLS, label, runtime.stalls.load(Relaxed));
        self.present(runtime.lag.name, label);
    }

    /// Records the single durations that were handed over, and what did not fit.
    fn samples<'s>(&self, sums: &'s Aggregate, others: impl Iterator<Item = &'s Series>) {
        while let Some((series, nanos)) = SAMPLES.pop() {
            self.record(&series, LeftOver { count: 1, nanos });
        }
        let of_watches = sums
            .watches
            .values()
            .flat_map(|watch| watch.slow_durations.iter().map(|series| &**series));
        for series in of_watches.chain(others) {
            let mut left_over = series.take_left_over();
            let now = left_over.split_off(AT_ONCE);
            // Before the recorder is called, which may panic.
            if left_over.count > 0 {
                series.leave(left_over);
            }
            if now.count > 0 {
                self.record(series, now);
            }
        }
    }

    /// If the recorder gives no histogram for them, but panics, they wait for the next batch.
    fn record(&self, series: &Series, durations: LeftOver) {
        let (label, value) = &series.label;
        let held = Held::new(series, durations);
        let histogram = self.histogram(series.name, [(*label, &**value)]);
        let LeftOver { count, nanos } = held.release();
        let seconds = nanos as f64 / 1e9 / count as f64;
        histogram.record_many(seconds, usize::try_from(count).unwrap_or(usize::MAX));
    }

    fn counter<const N: usize>(
        &self,
        name: &'static str,
        labels: [(&'static str, &str); N],
        value: u64,
    ) {
        let counter = self
            .recorder
            .register_counter(&key(name, labels), &METADATA);
        counter.absolute(value);
    }

    fn gauge<const N: usize>(
        &self,
        name: &'static str,
        labels: [(&'static str, &str); N],
        value: f64,
    ) {
        let gauge = self.recorder.register_gauge(&key(name, labels), &METADATA);
        gauge.set(value);
    }

    /// A histogram that is asked for is in the text, at 0, before anything was recorded.
    fn present<const N: usize>(&self, name: &'static str, labels: [(&'static str, &str); N]) {
        let _ = self.histogram(name, labels);
    }

    fn histogram<const N: usize>(
        &self,
        name: &'static str,
        labels: [(&'static str, &str); N],
    ) -> metrics::Histogram {
        self.recorder
            .register_histogram(&key(name, labels), &METADATA)
    }
}

/// Whether anybody receives what is recorded. Until then single durations wait where they are.
///
/// The facade does not tell. But before one is installed it lends its own no-op recorder, a value
/// of no size in a `static`; a recorder that somebody installed has a size, or, if it has none,
/// sits in a box of no size, at an address that is its alignment.
fn is_installed(recorder: &dyn Recorder) -> bool {
    let address = std::ptr::from_ref(recorder).cast::<()>().addr();
    size_of_val(recorder) > 0 || address == align_of_val(recorder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics::NoopRecorder;

    #[test]
    fn the_facades_own_recorder_is_told_from_an_installed_one() {
        struct Sized(#[expect(dead_code)] u8);
        impl Recorder for Sized {
            fn describe_counter(
                &self,
                _: metrics::KeyName,
                _: Option<metrics::Unit>,
                _: metrics::SharedString,
            ) {
            }
            fn describe_gauge(
                &self,
                _: metrics::KeyName,
                _: Option<metrics::Unit>,
                _: metrics::SharedString,
            ) {
            }
            fn describe_histogram(
                &self,
                _: metrics::KeyName,
                _: Option<metrics::Unit>,
                _: metrics::SharedString,
            ) {
            }
            fn register_counter(
                &self,
                _: &metrics::Key,
                _: &metrics::Metadata<'_>,
            ) -> metrics::Counter {
                metrics::Counter::noop()
            }
            fn register_gauge(
                &self,
                _: &metrics::Key,
                _: &metrics::Metadata<'_>,
            ) -> metrics::Gauge {
                metrics::Gauge::noop()
            }
            fn register_histogram(
                &self,
                _: &metrics::Key,
                _: &metrics::Metadata<'_>,
            ) -> metrics::Histogram {
                metrics::Histogram::noop()
            }
        }
        assert!(!metrics::with_recorder(is_installed));
        assert!(is_installed(&Sized(0)));
        assert!(is_installed(&*Box::new(NoopRecorder)));
    }
}

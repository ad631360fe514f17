//! The metrics thread, and one batch of it.
//!
//! A handle of the facade that the crate takes before a recorder is installed stays dead for ever. So the crate keeps no
//! handle. Every batch takes its handles from the present recorder and sets counters to their absolute value. Recorder and
//! watchdog may come in any order, and a second batch does no harm.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use metrics::Recorder;

use super::series::{self, METADATA, key};
use crate::background_thread::BackgroundThread;
use crate::catch_panic::catch_panic;
use crate::counters::{
    CulpritCount, LaneCounters, RuntimeCounters, all_lanes, all_runtimes, culprits,
};
use crate::error::Error;
use crate::histogram::PUBLISHED_BOUNDS_NANOS;
use crate::pending_durations::{
    DurationQueue, Overflow, PendingDurations, SLOW_POLL_DURATION, Series, SeriesRef,
};
use crate::sync::Lock;
use crate::sys;
use crate::watch::{Aggregate, Registry, Totals, WatchCounters, WatchSums, aggregate};

/// The longest time between two batches: a tenth of the usual scrape interval or less, so a scraped value is fresh.
const BATCH_INTERVAL: Duration = Duration::from_secs(1);

/// The most overflowed values that one series records in a batch. The facade's `record_many` is a loop, and an exporter
/// keeps each value until the next scrape.
const MAX_OVERFLOW_PER_BATCH: u64 = 10_000;

static DURATIONS: LazyLock<DurationQueue> = LazyLock::new(DurationQueue::new);
static THREAD: BackgroundThread = BackgroundThread::new("shotclock-metrics");
/// Held during a batch, and while an exporter drains its histograms. The exporter keeps durations in blocks, and a block
/// loses the values that arrive while the exporter empties it.
static BATCH: Lock<()> = Lock::new(());
static BUCKETS_AS_COUNTERS: AtomicBool = AtomicBool::new(false);

/// Starts the metrics thread unless it runs. It runs as long as the process.
pub(crate) fn start() -> Result<(), Error> {
    // Otherwise the first slow poll allocates the 128 KiB of the queue in its worker's time.
    LazyLock::force(&DURATIONS);
    THREAD.start(run)
}

fn run() {
    loop {
        publish();
        std::thread::park_timeout(BATCH_INTERVAL);
    }
}

/// Publishes a registry from now on.
pub(crate) fn register(registry: &Arc<Registry>) {
    crate::watch::register(registry);
}

/// Publishes the distributions as counters of the facade from now on.
pub(crate) fn publish_buckets_as_counters() {
    BUCKETS_AS_COUNTERS.store(true, Relaxed);
}

/// Returns whether the distributions are counters of the facade. The exporter then must not render them.
pub(crate) fn buckets_are_counters() -> bool {
    BUCKETS_AS_COUNTERS.load(Relaxed)
}

/// Queues the duration of one slow poll.
pub(crate) fn record_slow_poll(counters: &WatchCounters, nanos: u64) {
    record_duration(
        SeriesRef::Shared(Arc::clone(&counters.slow_durations)),
        nanos,
    );
}

/// Queues one duration for the metrics thread, and wakes the thread when the queue is half full.
pub(crate) fn record_duration(series: SeriesRef, nanos: u64) {
    if DURATIONS.push(series, nanos) {
        THREAD.wake();
    }
}

/// Publishes one batch on the calling thread, and returns the published sums.
pub(crate) fn publish() -> Aggregate {
    publish_and(|| ()).0
}

/// Publishes one batch, and calls `after` before the next one begins.
///
/// If the recorder panics, this batch is lost. The next one has the same totals.
pub(crate) fn publish_and<T>(after: impl FnOnce() -> T) -> (Aggregate, T) {
    let _batch = BATCH.lock();
    let sums = aggregate();
    // A recorder may wait for ever for a lock of its own in the child of a fork.
    if !sys::is_forked() {
        catch_panic(|| {
            metrics::with_recorder(|recorder| {
                Batch { recorder }.publish(&sums);
            });
        });
    }
    let result = after();
    (sums, result)
}

/// Calls `run` between two batches.
#[cfg(feature = "prometheus")]
pub(crate) fn between_batches<T>(run: impl FnOnce() -> T) -> T {
    let _batch = BATCH.lock();
    run()
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
            self.durations(sums, of_lanes.chain(of_runtimes));
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
        self.present(SLOW_POLL_DURATION, watch);
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

    /// Records the queued durations, and those that the queue had no room for.
    fn durations<'s>(&self, sums: &'s Aggregate, others: impl Iterator<Item = &'s Series>) {
        while let Some((series, nanos)) = DURATIONS.pop() {
            self.record(&series, Overflow { count: 1, nanos });
        }
        let of_watches = sums
            .watches
            .values()
            .flat_map(|watch| watch.slow_durations.iter().map(|series| &**series));
        for series in of_watches.chain(others) {
            let mut overflow = series.take_overflow();
            let now = overflow.split_off(MAX_OVERFLOW_PER_BATCH);
            // First, because the recorder may panic.
            if overflow.count > 0 {
                series.add_overflow(overflow);
            }
            if now.count > 0 {
                self.record(series, now);
            }
        }
    }

    /// Records durations. If the recorder panics before it returns the histogram, they wait for the next batch.
    fn record(&self, series: &Series, durations: Overflow) {
        let (label, value) = &series.label;
        let pending = PendingDurations::new(series, durations);
        let histogram = self.histogram(series.name, [(*label, &**value)]);
        let Overflow { count, nanos } = pending.take();
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

    /// Makes the exporter render the histogram, at 0, before it has a value.
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

/// Returns whether the program installed a recorder. Until then the durations stay in the queue.
///
/// The facade has no function for this. Without an installed recorder it passes its own no-op recorder, a zero-sized value
/// in a `static`. An installed recorder has a size, or sits in a zero-sized box, whose address equals its alignment.
fn is_installed(recorder: &dyn Recorder) -> bool {
    let address = std::ptr::from_ref(recorder).cast::<()>().addr();
    size_of_val(recorder) > 0 || address == align_of_val(recorder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics::NoopRecorder;

    #[test]
    fn is_installed_for_the_facades_own_recorder_is_false() {
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

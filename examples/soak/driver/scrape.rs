//! Parses a text for Prometheus, and checks the invariants between two texts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A series and its value. The name includes the labels.
type Series = BTreeMap<String, f64>;

/// One parsed text.
#[derive(Debug, Default)]
pub(super) struct Scrape {
    series: Series,
    /// Duplicate series, and lines that cannot be parsed.
    broken: Vec<String>,
}

impl Scrape {
    pub(super) fn parse(text: &str) -> Self {
        let mut scrape = Self::default();
        for line in text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let parsed = line.rsplit_once(' ');
            match parsed.and_then(|(name, value)| Some((name, value.parse().ok()?))) {
                Some((name, value)) => {
                    if scrape.series.insert(name.to_owned(), value).is_some() {
                        scrape.broken.push(name.to_owned());
                    }
                }
                None => scrape.broken.push(line.to_owned()),
            }
        }
        scrape
    }

    /// Makes one counter go back, of a metric that no other claim uses.
    pub(super) fn turn_back(&mut self) {
        let series = self.series.iter_mut();
        let busy = series.filter(|(name, _)| name.starts_with("shotclock_poll_busy_"));
        busy.for_each(|(_, value)| *value /= 2.0);
    }

    /// Returns the value of the metric's series with this one label.
    pub(super) fn value(&self, metric: &str, label: &str, value: &str) -> Option<u64> {
        let series = format!("{metric}{{{label}=\"{value}\"}}");
        self.series.get(&series).map(|value| *value as u64)
    }

    /// Returns the sum of the metric's series that have all of these labels.
    pub(super) fn sum(&self, metric: &str, labels: &[(&str, &str)]) -> u64 {
        let has = |series: &str| {
            let mut labels = labels.iter();
            labels.all(|(name, value)| series.contains(&format!("{name}=\"{value}\"")))
        };
        let of_metric = |series: &str| series.split('{').next() == Some(metric);
        let series = self.series.iter();
        let found = series.filter(|(series, _)| of_metric(series) && has(series));
        found.map(|(_, value)| *value as u64).sum()
    }

    /// Returns the values of a label over all series of a metric.
    pub(super) fn values(&self, metric: &str, label: &str) -> BTreeSet<&str> {
        let (start, label) = (format!("{metric}{{"), format!("{label}=\""));
        let of_metric = self
            .series
            .keys()
            .filter(|series| series.starts_with(&start));
        let labelled = of_metric.filter_map(|series| series.split_once(&label));
        let values = labelled.filter_map(|(_, value)| value.split_once('"'));
        values.map(|(value, _)| value).collect()
    }
}

/// A metric whose series come and go: one for each of the worst culprits, and one for the rest of each watch.
const CULPRITS: &str = "shotclock_culprit_over_budget_seconds_total";
pub(super) const WORST_CULPRITS: usize = 50;

/// The observations over all texts.
#[derive(Debug, Default)]
pub(super) struct Book {
    last: Series,
    /// The series after the warm-up, without culprits.
    settled: Option<BTreeSet<String>>,
    pub(super) scrapes: u64,
    pub(super) slowest: Duration,
    pub(super) culprits: usize,
    /// Counters that went back or disappeared, and parse errors.
    pub(super) faults: Vec<String>,
}

impl Book {
    pub(super) fn enter(&mut self, scrape: &Scrape, took: Duration) {
        self.scrapes += 1;
        self.slowest = self.slowest.max(took);
        self.faults.extend(
            scrape
                .broken
                .iter()
                .map(|what| format!("{what}: twice, or no series")),
        );
        for (name, last) in self.last.iter().filter(|(name, _)| is_counter(name)) {
            match scrape.series.get(name) {
                Some(value) if value >= last => {}
                None if name.starts_with(CULPRITS) => {}
                value => self.faults.push(format!("{name}: {last}, then {value:?}")),
            }
        }
        self.last.clone_from(&scrape.series);
        let is_culprit =
            |name: &&String| name.starts_with(CULPRITS) && !name.contains("culprit=\"other\"");
        self.culprits = self.last.keys().filter(is_culprit).count();
    }

    fn series(&self) -> BTreeSet<String> {
        let names = self.last.keys().filter(|name| !name.starts_with(CULPRITS));
        names.cloned().collect()
    }

    /// Ends the warm-up: from now on, no new series may appear.
    pub(super) fn settle(&mut self) {
        self.settled = Some(self.series());
    }

    /// Returns the number of series, and those that appeared after the warm-up.
    pub(super) fn changed(&self) -> (usize, Vec<String>) {
        let (now, settled) = (self.series(), self.settled.clone().unwrap_or_default());
        let changed = now.symmetric_difference(&settled).cloned();
        (now.len(), changed.collect())
    }
}

fn is_counter(series: &str) -> bool {
    let metric = series.split('{').next().unwrap_or(series);
    let ends = ["_total", "_bucket", "_count", "_sum"];
    ends.iter().any(|end| metric.ends_with(end))
}

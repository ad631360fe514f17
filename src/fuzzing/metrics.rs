//! The metrics text of watches with hostile names.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Input;
use super::exposition::{SeriesKey, read};
use crate::counters::CulpritCount;
use crate::histogram::{BOUNDS_NANOS, PUBLISHED_BOUNDS_NANOS};
use crate::prometheus::{Exporter, builder, text};
use crate::watch::{Aggregate, Totals, WatchSums};

thread_local! {
    static EXPORTER: LazyCell<Exporter> =
        LazyCell::new(|| Exporter::new(builder().build_recorder().handle()));
}

/// Writes the metrics. A reader of the text gets every name and number that went in.
pub fn metrics(data: &[u8]) {
    let mut input = Input::new(data);
    let mut exporter = EXPORTER.with(|exporter| (**exporter).clone());
    for _ in 0..input.below(4) {
        exporter = exporter.global_label(input.name(), input.name());
    }
    let mut sums = Aggregate::default();
    for _ in 0..input.below(4) {
        let watch = WatchSums {
            totals: totals(&mut input),
            ..WatchSums::default()
        };
        sums.watches.insert(input.name().into(), watch);
    }
    let culprits = culprits(&mut input);
    let mut text = String::new();
    text::write(&mut text, &sums, &culprits, &exporter.labels);
    let mut samples = Samples {
        left: read(&text),
        global: exporter.labels.iter().cloned().collect(),
    };
    assert_eq!(samples.global.len(), exporter.labels.len(), "a label twice");
    for (name, watch) in &sums.watches {
        samples.take_watch(name, &watch.totals);
    }
    for culprit in &culprits {
        let labels = [("watch", &*culprit.watch), ("culprit", &*culprit.culprit)];
        let name = "shotclock_culprit_over_budget_seconds_total";
        assert_eq!(samples.take(name, &labels), u128::from(culprit.over_budget));
    }
    assert!(samples.left.is_empty(), "{:?}", samples.left);
}

fn totals(input: &mut Input<'_>) -> Totals {
    let mut totals = Totals::default();
    totals.total = input.number();
    totals.busy = input.number();
    for _ in 0..input.below(8) {
        let cell = input.below(totals.distribution.cells.len());
        totals.distribution.cells[cell] = input.number() >> 8;
    }
    totals
}

fn culprits(input: &mut Input<'_>) -> Vec<CulpritCount> {
    let mut known = BTreeSet::new();
    let culprits = (0..input.below(5)).map(|_| CulpritCount {
        watch: input.name().into(),
        culprit: input.name().into(),
        over_budget: input.number(),
    });
    let mut culprits: Vec<_> = culprits.collect();
    culprits.retain(|c| known.insert((Arc::clone(&c.watch), Arc::clone(&c.culprit))));
    culprits
}

struct Samples {
    left: BTreeMap<SeriesKey, String>,
    global: BTreeMap<String, String>,
}

impl Samples {
    /// Takes a sample out, and returns its value in billionths.
    fn take(&mut self, name: &str, labels: &[(&str, &str)]) -> u128 {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()));
        let mut all = self.global.clone();
        all.extend(labels);
        let series = (name.to_owned(), all);
        let value = self.left.remove(&series);
        nanos(&value.unwrap_or_else(|| panic!("{series:?} is not in {:?}", self.left)))
    }

    fn take_watch(&mut self, watch: &str, totals: &Totals) {
        const UNIT: u128 = 1_000_000_000;
        let name = "shotclock_poll_duration_seconds";
        let labels = [("watch", watch)];
        let cells = &totals.distribution.cells;
        let sum = |cells: &[u64]| cells.iter().map(|count| u128::from(*count)).sum::<u128>();
        let all = sum(cells) * UNIT;
        assert_eq!(self.take(&format!("{name}_count"), &labels), all);
        assert_eq!(
            self.take(&format!("{name}_sum"), &labels),
            totals.total.into()
        );
        let busy = self.take("shotclock_poll_busy_seconds_total", &labels);
        assert_eq!(busy, totals.busy.into());
        let bucket = format!("{name}_bucket");
        for bound in PUBLISHED_BOUNDS_NANOS {
            // Not by the function that writes seconds: that one is under test.
            let le = format!("{}", bound as f64 / 1e9);
            let within = BOUNDS_NANOS
                .iter()
                .take_while(|upper| **upper <= bound)
                .count();
            let count = self.take(&bucket, &[labels[0], ("le", &le)]);
            assert_eq!(count, sum(&cells[..within]) * UNIT, "{le}");
        }
        assert_eq!(self.take(&bucket, &[labels[0], ("le", "+Inf")]), all);
    }
}

/// A decimal number in billionths, exactly.
fn nanos(value: &str) -> u128 {
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let digits = format!("{whole}{fraction:0<9}");
    assert!(fraction.len() <= 9, "{value}");
    digits.parse().expect("digits, and a point among them")
}

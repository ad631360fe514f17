//! The sums over reports of functions with hostile names.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Input, assert_is_table};
use crate::counters::CulpritSums;
use crate::dispatch::culprit_sample::{CulpritSample, Identity};
use crate::dispatch::culprit_totals::{CulpritTotals, MAX_CULPRITS, MAX_STACKS};
use crate::report::{Cause, Frame, Stack};

/// Adds up reports. The sums lose no report and count none twice, and memory is bounded. A reader of the text gets the names
/// and numbers of the reports.
pub fn culprits(data: &[u8]) {
    let mut input = Input::new(data);
    let mut model = ExpectedTotals::default();
    let watches: [Arc<str>; 3] = std::array::from_fn(|_| input.name().into());
    while !input.is_empty() {
        let watch = &watches[input.below(watches.len())];
        let function = input.name();
        // Sometimes too many functions for each to keep its name.
        let times = match input.byte() {
            250.. => 60 + 4 * usize::from(input.byte()),
            _ => 1,
        };
        let report = AddedReport {
            id: input.byte() % 4,
            nanos: input.number() >> 20,
            has_ended: input.flag(),
        };
        for number in 0..times {
            let function = match number {
                0 => function.clone(),
                _ => format!("{function}{number}"),
            };
            model.note(watch, &function, &report);
        }
        model.sums(watch, &function, input.number());
    }
    model.check(watches.len());
}

struct AddedReport {
    id: u8,
    nanos: u64,
    has_ended: bool,
}

#[derive(Default)]
struct ExpectedTotals {
    totals: CulpritTotals,
    /// Nanoseconds that were counted of each poll that has not ended.
    in_flight: HashMap<u8, u64>,
    total: u64,
    sums: CulpritSums,
    /// The latest value of each series.
    series: BTreeMap<(Arc<str>, Arc<str>), u64>,
    sums_total: u128,
}

fn frame(function: &str) -> Frame {
    Frame {
        address: 7,
        function: (!function.is_empty()).then(|| function.into()),
        file: None,
        line: Some(7),
        module: Some(format!("/opt/{function}").into()),
    }
}

impl ExpectedTotals {
    fn note(&mut self, watch: &Arc<str>, function: &str, report: &AddedReport) {
        let AddedReport {
            id,
            nanos,
            has_ended,
        } = *report;
        let stack = Stack::of_frames(vec![frame(function), frame("app::run")]);
        let sample = CulpritSample {
            id: id.into(),
            identity: Identity {
                watch: Arc::clone(watch),
                cause: Cause::Computing,
                function: function.into(),
            },
            place: None,
            stack: &stack,
            path: vec![watch],
            over_budget: Duration::from_nanos(nanos),
            has_ended,
        };
        self.totals.add(&sample, SystemTime::UNIX_EPOCH);
        let counted = self.in_flight.remove(&id).unwrap_or_default();
        self.total += nanos.saturating_sub(counted);
        if !has_ended {
            self.in_flight.insert(id, nanos.max(counted));
        }
    }

    /// Adds to the metrics. No series decreases or comes twice, and their sum is complete.
    fn sums(&mut self, watch: &Arc<str>, function: &str, nanos: u64) {
        for number in 0..60 {
            self.sums
                .add(watch, &format!("{function}{}", number % 53).into(), nanos);
            self.sums.add(watch, &"other".into(), 1);
            self.sums_total += u128::from(nanos) + 1;
        }
        let counts = self.sums.counts();
        let mut now = BTreeMap::new();
        for count in &counts {
            let name = (Arc::clone(&count.watch), Arc::clone(&count.culprit));
            let before = self.series.insert(name.clone(), count.over_budget);
            assert!(
                before.is_none_or(|before| before <= count.over_budget),
                "{name:?}"
            );
            assert!(
                now.insert(name, count.over_budget).is_none(),
                "twice: {count:?}"
            );
        }
    }

    fn check(&self, watches: usize) {
        let culprits = self.totals.culprits();
        assert!(culprits.iter().len() <= MAX_CULPRITS + watches);
        let nanos = culprits
            .iter()
            .map(|culprit| culprit.over_budget.as_nanos());
        assert_eq!(nanos.sum::<u128>(), u128::from(self.total));
        let stacks = &culprits.stacks;
        assert!(stacks.len() <= culprits.iter().len() * (MAX_STACKS + 1));
        assert_eq!(
            stacks.iter().map(|(_, nanos)| nanos).sum::<u64>(),
            self.total
        );
        let folded = culprits.folded();
        let lines: Vec<_> = folded.lines().collect();
        assert_eq!(lines.len(), stacks.len(), "{folded:?}");
        for (line, (_, nanos)) in lines.iter().zip(stacks) {
            assert_is_folded(line, nanos / 1_000);
        }
        assert_is_table(&culprits.to_string(), culprits.iter().len());
        let counts = self.sums.counts();
        assert!(counts.len() <= 50 + watches);
        // The sum saturates at `u64::MAX`.
        if self.sums_total < u128::from(u64::MAX) {
            assert_eq!(self.sums.total(), self.sums_total);
        }
    }
}

/// Asserts that tools read the line as a stack, a blank and a number. A second number would make it a difference.
fn assert_is_folded(line: &str, micros: u64) {
    let (stack, number) = line.rsplit_once(' ').expect("a number at the end");
    assert_eq!(number, micros.to_string());
    let last = stack.trim_end().rsplit(char::is_whitespace).next();
    let is_number = |word: &str| {
        let (whole, fraction) = word.split_once('.').unwrap_or((word, ""));
        whole.parse::<u64>().is_ok() && fraction.chars().all(|c| c.is_ascii_digit())
    };
    let has_blank = stack.trim_end().contains(char::is_whitespace);
    assert!(!(has_blank && last.is_some_and(is_number)), "{line:?}");
    // Two watches and two functions, or the row for all that have no row.
    let parts = stack.split(';').count();
    assert!(parts == 4 || stack == "other", "{line:?}");
    assert!(!line.chars().any(char::is_control), "{line:?}");
}

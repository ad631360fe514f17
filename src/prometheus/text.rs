//! What is rendered from the watches' own counters.

use std::fmt::Write as _;

use metrics_exporter_prometheus::formatting::{write_help_line, write_type_line};

use crate::counts::CulpritCount;
use crate::histogram::PUBLISHED_BOUNDS;
use crate::publish::{CULPRITS, POLL_BUSY, POLL_DURATION, seconds};
use crate::watch::{Sums, Totals};

/// Appends the distribution and the busy time of every watch, and the culprits.
pub(super) fn write(
    text: &mut String,
    sums: &Sums,
    culprits: &[CulpritCount],
    global: &[(String, String)],
) {
    let global: String = (global.iter())
        .map(|(name, value)| {
            let value = escaped(value);
            format!("{name}=\"{value}\",")
        })
        .collect();
    watches(text, sums, &global);
    write_culprits(text, culprits, &global);
}

/// The value of a label. Not as the exporter escapes it, which takes two backslashes for one that was
/// escaped before: two names would be one series.
fn escaped(value: &str) -> String {
    let escaped = value.replace('\\', r"\\").replace('"', r#"\""#);
    escaped.replace('\n', r"\n")
}

fn watches(text: &mut String, sums: &Sums, global: &str) {
    let labelled = sums.watches.iter().map(|(name, watch)| {
        let labels = format!("{global}watch=\"{}\"", escaped(name));
        (labels, &watch.totals)
    });
    let labelled: Vec<_> = labelled.collect();
    if labelled.is_empty() {
        return;
    }
    head(text, POLL_DURATION, "histogram");
    for (labels, totals) in &labelled {
        histogram(text, labels, totals);
    }
    text.push('\n');
    head(text, POLL_BUSY, "counter");
    for (labels, totals) in &labelled {
        line(text, POLL_BUSY.0, labels, &seconds(totals.busy));
    }
    text.push('\n');
}

/// Appends for how long each function held workers past their budgets.
fn write_culprits(text: &mut String, counts: &[CulpritCount], global: &str) {
    if counts.is_empty() {
        return;
    }
    head(text, CULPRITS, "counter");
    for count in counts {
        let (watch, culprit) = (&count.watch, &count.culprit);
        let (watch, culprit) = (escaped(watch), escaped(culprit));
        let labels = format!("{global}watch=\"{watch}\",culprit=\"{culprit}\"");
        line(text, CULPRITS.0, &labels, &seconds(count.over_budget));
    }
    text.push('\n');
}

fn head(text: &mut String, (name, help): (&str, &str), kind: &str) {
    write_help_line(text, name, None, None, help);
    write_type_line(text, name, None, None, kind);
}

fn histogram(text: &mut String, labels: &str, totals: &Totals) {
    let (name, distribution) = (POLL_DURATION.0, &totals.distribution);
    let bucket = format!("{name}_bucket");
    let count = distribution.count().to_string();
    for bound in PUBLISHED_BOUNDS {
        let labels = format!("{labels},le=\"{}\"", seconds(bound));
        line(
            text,
            &bucket,
            &labels,
            &distribution.at_most(bound).to_string(),
        );
    }
    line(text, &bucket, &format!("{labels},le=\"+Inf\""), &count);
    line(text, &format!("{name}_sum"), labels, &seconds(totals.total));
    line(text, &format!("{name}_count"), labels, &count);
}

fn line(text: &mut String, name: &str, labels: &str, value: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{name}{{{labels}}} {value}");
}

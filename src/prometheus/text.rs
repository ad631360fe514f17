//! Renders the watches' own counters as Prometheus text.

use std::fmt::Write as _;

use metrics_exporter_prometheus::formatting::{write_help_line, write_type_line};

use crate::counters::CulpritCount;
use crate::histogram::PUBLISHED_BOUNDS_NANOS;
use crate::publish::{CULPRITS, POLL_BUSY, POLL_DURATION, seconds};
use crate::watch::{Aggregate, Totals};

/// Appends the distribution and the busy time of every watch, and the culprits.
pub(crate) fn write(
    text: &mut String,
    sums: &Aggregate,
    culprits: &[CulpritCount],
    global: &[(String, String)],
) {
    let global: String = (global.iter())
        .map(|(name, value)| {
            let value = escape_label_value(value);
            format!("{name}=\"{value}\",")
        })
        .collect();
    write_watches(text, sums, &global);
    write_culprits(text, culprits, &global);
}

/// Escapes the value of a label.
///
/// The exporter's own function treats two backslashes as one that is escaped already. Then two names would be one
/// series.
fn escape_label_value(value: &str) -> String {
    let quoted = value.replace('\\', r"\\").replace('"', r#"\""#);
    quoted.replace('\n', r"\n")
}

fn write_watches(text: &mut String, sums: &Aggregate, global: &str) {
    let labelled = sums.watches.iter().map(|(name, watch)| {
        let labels = format!("{global}watch=\"{}\"", escape_label_value(name));
        (labels, &watch.totals)
    });
    let labelled: Vec<_> = labelled.collect();
    if labelled.is_empty() {
        return;
    }
    write_head(text, POLL_DURATION, "histogram");
    for (labels, totals) in &labelled {
        write_histogram(text, labels, totals);
    }
    text.push('\n');
    write_head(text, POLL_BUSY, "counter");
    for (labels, totals) in &labelled {
        write_line(text, POLL_BUSY.0, labels, &seconds(totals.busy));
    }
    text.push('\n');
}

/// Appends the time over budget of each culprit.
fn write_culprits(text: &mut String, counts: &[CulpritCount], global: &str) {
    if counts.is_empty() {
        return;
    }
    write_head(text, CULPRITS, "counter");
    for count in counts {
        let (watch, culprit) = (&count.watch, &count.culprit);
        let (watch, culprit) = (escape_label_value(watch), escape_label_value(culprit));
        let labels = format!("{global}watch=\"{watch}\",culprit=\"{culprit}\"");
        write_line(text, CULPRITS.0, &labels, &seconds(count.over_budget));
    }
    text.push('\n');
}

fn write_head(text: &mut String, (name, help): (&str, &str), kind: &str) {
    write_help_line(text, name, None, None, help);
    write_type_line(text, name, None, None, kind);
}

fn write_histogram(text: &mut String, labels: &str, totals: &Totals) {
    let (name, distribution) = (POLL_DURATION.0, &totals.distribution);
    let bucket = format!("{name}_bucket");
    let count = distribution.count().to_string();
    for bound in PUBLISHED_BOUNDS_NANOS {
        let labels = format!("{labels},le=\"{}\"", seconds(bound));
        write_line(
            text,
            &bucket,
            &labels,
            &distribution.at_most(bound).to_string(),
        );
    }
    write_line(text, &bucket, &format!("{labels},le=\"+Inf\""), &count);
    write_line(text, &format!("{name}_sum"), labels, &seconds(totals.total));
    write_line(text, &format!("{name}_count"), labels, &count);
}

fn write_line(text: &mut String, name: &str, labels: &str, value: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{name}{{{labels}}} {value}");
}

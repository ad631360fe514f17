//! Writes the recent polls as a trace for Perfetto: JSON trace events, one track per thread.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::flight_record::{self, RecordedPoll};
use crate::report::SlowPoll;
use crate::slot;
use crate::watch::name_of;
use crate::watchdog::Watchdog;

impl Watchdog {
    /// Returns the last polls that took more than half of their budgets, as JSON trace events for
    /// <https://ui.perfetto.dev>. Each thread is a track, and each poll a slice. Recently reported polls have their cause and
    /// stack.
    ///
    /// The record belongs to the process: it has the last 4,096 such polls of all watchdogs, in 256 KiB. Causes and stacks are
    /// those of the last 256 reports of this watchdog.
    ///
    /// # Examples
    ///
    /// ```
    /// # let watchdog = shotclock::Watchdog::builder().build()?;
    /// let path = std::env::temp_dir().join("flight.json");
    /// std::fs::write(path, watchdog.flight_record())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Non-guarantees
    ///
    /// Two threads, one of which ended before the other began, may share a track under the name of the later one. Polls in
    /// flight are not in the record.
    pub fn flight_record(&self) -> String {
        let entries = flight_record::read();
        let recent = self.history().recent().polls();
        let reports: HashMap<_, _> = recent
            .iter()
            .filter_map(|recent| Some(((recent.slow.slot?, recent.slow.seq?), &recent.slow)))
            .collect();
        let clock = self.clock();
        let first = entries.first().map_or(0, |entry| entry.start);
        let micros = |raw: u64| clock.nanos_between(first, raw) as f64 / 1e3;
        let slice = |entry: &RecordedPoll| {
            let which = entry.seq.map(|seq| (entry.slot, seq.get()));
            let report = which.and_then(|which| reports.get(&which).copied());
            slice(entry, micros(entry.start), report)
        };
        let events: Vec<_> = tracks().chain(entries.iter().map(slice)).collect();
        json!({ "displayTimeUnit": "ms", "traceEvents": events }).to_string()
    }
}

/// Returns the names of the threads.
fn tracks() -> impl Iterator<Item = Value> {
    let name = |slot: &slot::Slot| {
        let thread = slot.diagnostics().thread();
        thread.map_or_else(
            || "a thread that has ended".into(),
            |thread| thread.to_string(),
        )
    };
    slot::all().into_iter().map(move |slot| {
        json!({
            "ph": "M",
            "name": "thread_name",
            "pid": std::process::id(),
            "tid": slot.index(),
            "args": { "name": name(slot) },
        })
    })
}

fn slice(entry: &RecordedPoll, start: f64, report: Option<&SlowPoll>) -> Value {
    let mut arguments = json!({
        "kind": entry.kind.to_string(),
        "budget_ms": entry.budget_nanos as f64 / 1e6,
    });
    if let Some(slow) = report {
        arguments["cause"] = json!(slow.cause.to_string());
        arguments["watched_at"] = json!(slow.location.to_string());
        arguments["stack"] = json!(slow.stack);
    }
    json!({
        "ph": "X",
        "name": name_of(entry.watch).unwrap_or_default(),
        "cat": if entry.elapsed_nanos > entry.budget_nanos { "slow" } else { "poll" },
        "ts": start,
        "dur": entry.elapsed_nanos as f64 / 1e3,
        "pid": std::process::id(),
        "tid": entry.slot,
        "args": arguments,
    })
}

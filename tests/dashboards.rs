//! The dashboard and the rules use all published metrics, and no others. `scripts/prometheus-demo` shows that their queries
//! return the right values.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use shotclock::{Watchdog, offload, prometheus};

const DASHBOARD: &str = include_str!("../dashboards/shotclock.grafana.json");
const RULES: &str = include_str!("../dashboards/shotclock.rules.yml");

/// Returns the metric names in a text, without the endings of a histogram's parts.
fn metrics(text: &str) -> BTreeSet<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let names = text.split(|c| !is_name(c));
    let ours = names.filter(|name| name.starts_with("shotclock_"));
    ours.map(|name| name.trim_end_matches("_bucket")).collect()
}

/// Makes each event once, so that all metrics exist.
fn published() -> BTreeSet<String> {
    let exporter = prometheus::install("127.0.0.1:0".parse().unwrap()).unwrap();
    let watchdog = Watchdog::builder().without_tracing().build().unwrap();
    let watch = watchdog.watch("w").with_budget(Duration::ZERO);
    // Long enough for a scan, so that there is a culprit.
    let entered = watch.enter();
    while watchdog.culprits().is_empty() {
        thread::sleep(Duration::from_millis(1));
    }
    drop(entered);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _guard = watchdog.guard("main", runtime.handle());
    runtime.block_on(offload(|| ())).unwrap();
    let is_there = |text: &str, name: &str| text.contains(&format!("{name}_count"));
    // A minute, for a busy machine.
    for _ in 0..3_000 {
        let text = exporter.render();
        // Single durations come from another thread.
        let singles = [
            "shotclock_slow_poll_duration_seconds",
            "shotclock_offload_run_seconds",
            "shotclock_runtime_lag_seconds",
        ];
        if singles.iter().all(|name| is_there(&text, name)) {
            let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
            let names = types.filter_map(|line| line.split(' ').next());
            return names
                .filter(|name| name.starts_with("shotclock_"))
                .map(str::to_owned)
                .collect();
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("single durations were not published");
}

fn panels() -> Vec<Value> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    dashboard["panels"].as_array().unwrap().clone()
}

fn queries(panels: &[Value]) -> Vec<&str> {
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let queries = targets
        .flatten()
        .map(|target| target["expr"].as_str().unwrap());
    queries.collect()
}

#[test]
fn dashboard_queries_and_metrics_match() {
    let published = published();
    let published: BTreeSet<&str> = published.iter().map(String::as_str).collect();
    let panels = panels();
    let queries = queries(&panels).join("\n");
    assert_eq!(metrics(&queries), published);
    let comments = |line: &&str| !line.trim_start().starts_with('#');
    let rules: Vec<_> = RULES.lines().filter(comments).collect();
    let in_rules = rules.join("\n");
    let unknown: Vec<_> = metrics(&in_rules).difference(&published).copied().collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn alerts_use_existing_recording_rules() {
    let recorded = |line: &str| line.trim().strip_prefix("- record: ").map(str::to_owned);
    let records: BTreeSet<_> = RULES.lines().filter_map(recorded).collect();
    let alerts = RULES.split("- alert: ").skip(1);
    for alert in alerts {
        let asked = alert.lines().find(|line| line.contains("expr:")).unwrap();
        let words = asked.split([' ', '(', ')']);
        for record in words.filter(|word| word.contains(":shotclock")) {
            assert!(records.contains(record), "{record}");
        }
        assert!(
            alert.contains("summary:") && alert.contains("runbook:"),
            "{alert}"
        );
    }
}

#[test]
fn dashboard_panels_do_not_overlap() {
    let mut cells = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in panels() {
        let title = panel["title"].as_str().unwrap().to_owned();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        let at = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        let (left, right) = (at("x"), at("x") + at("w"));
        assert!(right <= 24, "{title} is wider than the page");
        for y in at("y")..at("y") + at("h") {
            for x in left..right {
                assert!(cells.insert((x, y)), "{title} lies on another panel");
            }
        }
    }
}

/// The dashboard serves many instances, so each query selects a job and an instance.
#[test]
fn dashboard_queries_select_job_and_instance() {
    let panels = panels();
    for query in queries(&panels) {
        let selectors = query.matches('{').count();
        let narrowed = query
            .matches(r#"{job=~"$job", instance=~"$instance""#)
            .count();
        assert_eq!(selectors, narrowed, "{query}");
        assert!(selectors > 0, "{query}");
    }
}

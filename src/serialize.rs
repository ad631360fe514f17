//! Floor 7: serializes reports and statistics (feature `serde`).
//!
//! Times are seconds, types with a `Display` are strings, and a missing value is `null`. The shapes are part of the
//! public interface: a minor version may add fields and renames none.

use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::report::{
    Allowance, Culprit, Incident, OtherThread, RuntimeSnapshot, SlowPoll, StuckWorker,
    TimeBreakdown,
};
use crate::stack::Stack;
use crate::watch::{Health, Snapshot, Status, WatchStats};

/// Seconds.
fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// Seconds since 1970; 0 before.
pub(crate) fn timestamp(at: SystemTime) -> f64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    since.map(seconds).unwrap_or_default()
}

/// A view of each public type has the fields of its JSON, and is what is serialized.
macro_rules! serialize_as {
    ($($type:ty => $view:ident),* $(,)?) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $view::of(self).serialize(serializer)
            }
        }
    )*};
}

serialize_as! {
    Health => HealthView,
    WatchStats => WatchView,
    SlowPoll => SlowPollView,
    StuckWorker => StuckWorkerView,
    RuntimeSnapshot => RuntimeSnapshotView,
    Culprit => CulpritView,
    Stack => StackView,
    TimeBreakdown => TimeBreakdownView,
    Allowance => AllowanceView,
    OtherThread => OtherThreadView,
}

impl Serialize for Snapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

#[derive(Serialize)]
struct HealthView {
    /// `responsive`, `stalled` or `unknown`.
    status: &'static str,
    stalls: u64,
    stuck_workers: u64,
    busy_workers: u64,
    oldest_stall: Option<f64>,
    unseen: Option<f64>,
}

impl HealthView {
    fn of(health: &Health) -> Self {
        Self {
            status: match health.status {
                Status::Responsive => "responsive",
                Status::Stalled => "stalled",
                Status::Unknown => "unknown",
            },
            stalls: health.stalls,
            stuck_workers: health.stuck_workers,
            busy_workers: health.busy_workers,
            oldest_stall: health.oldest_stall.map(seconds),
            unseen: health.unseen.map(seconds),
        }
    }
}

#[derive(Serialize)]
struct WatchView<'s> {
    watch: &'s str,
    polls: u64,
    slow_polls: u64,
    panicked_polls: u64,
    contained_polls: u64,
    in_flight: u64,
    stalls: u64,
    oldest_in_flight: Option<f64>,
    busy: f64,
    longest: f64,
    p50: Option<f64>,
    p90: Option<f64>,
    p99: Option<f64>,
    /// The cells that are not empty: the upper bound, `null` for the last, and the polls in it.
    histogram: Vec<(Option<f64>, u64)>,
}

impl<'s> WatchView<'s> {
    fn of(stats: &'s WatchStats) -> Self {
        let quantile = |q| stats.quantile(q).map(seconds);
        let cells = stats.histogram();
        Self {
            watch: &stats.watch,
            polls: stats.polls,
            slow_polls: stats.slow_polls,
            panicked_polls: stats.panicked_polls,
            contained_polls: stats.contained_polls,
            in_flight: stats.in_flight,
            stalls: stats.stalls,
            oldest_in_flight: stats.oldest_in_flight.map(seconds),
            busy: seconds(stats.busy),
            longest: seconds(stats.longest),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            histogram: cells.map(|(le, count)| (le.map(seconds), count)).collect(),
        }
    }
}

/// The fields that both kinds of report have.
#[derive(Serialize)]
struct IncidentView<'r> {
    id: u64,
    /// `running` or `finished`.
    phase: String,
    path: Vec<&'r str>,
    thread: Option<String>,
    elapsed: f64,
    budget: f64,
    cause: String,
    waiting_on: Option<&'r str>,
    split: Option<&'r TimeBreakdown>,
    stack: Option<&'r Stack>,
    no_stack: Option<&'static str>,
    runtime_snapshot: Option<&'r RuntimeSnapshot>,
    suppressed: u64,
}

impl<'r> IncidentView<'r> {
    fn of(incident: Incident<'r>) -> Self {
        Self {
            id: incident.id,
            phase: incident.phase.to_string(),
            path: incident.path.iter().collect(),
            thread: incident.thread.map(ToString::to_string),
            elapsed: seconds(incident.elapsed),
            budget: seconds(incident.budget),
            cause: incident.cause.to_string(),
            waiting_on: incident.waiting_on,
            split: incident.split,
            stack: incident.stack,
            no_stack: incident.no_stack,
            runtime_snapshot: incident.runtime,
            suppressed: incident.suppressed,
        }
    }
}

#[derive(Serialize)]
struct SlowPollView<'r> {
    #[serde(flatten)]
    incident: IncidentView<'r>,
    kind: String,
    watch: &'r str,
    charged: f64,
    other_threads: &'r [OtherThread],
    allowance: Option<&'r Allowance>,
    handed_over: bool,
    location: String,
    task: Option<String>,
    hint: String,
}

impl<'r> SlowPollView<'r> {
    fn of(slow: &'r SlowPoll) -> Self {
        Self {
            incident: IncidentView::of(slow.incident()),
            kind: slow.kind.to_string(),
            watch: &slow.watch,
            charged: seconds(slow.charged),
            other_threads: &slow.other_threads,
            allowance: slow.allowance.as_ref(),
            handed_over: slow.handed_over,
            location: slow.location.to_string(),
            task: slow.task.map(|task| task.to_string()),
            hint: slow.hint(),
        }
    }
}

#[derive(Serialize)]
struct StuckWorkerView<'r> {
    #[serde(flatten)]
    incident: IncidentView<'r>,
    /// `one poll` or `busy`.
    kind: String,
    runtime: &'r str,
    worker: usize,
    hint: String,
}

impl<'r> StuckWorkerView<'r> {
    fn of(stuck: &'r StuckWorker) -> Self {
        Self {
            incident: IncidentView::of(stuck.incident()),
            kind: stuck.kind.to_string(),
            runtime: &stuck.runtime,
            worker: stuck.worker,
            hint: stuck.hint(),
        }
    }
}

#[derive(Serialize)]
struct RuntimeSnapshotView<'r> {
    runtime: &'r str,
    queued: usize,
    workers: usize,
    parked: usize,
    lag: f64,
}

impl<'r> RuntimeSnapshotView<'r> {
    fn of(snapshot: &'r RuntimeSnapshot) -> Self {
        Self {
            runtime: &snapshot.runtime,
            queued: snapshot.queued,
            workers: snapshot.workers,
            parked: snapshot.parked,
            lag: seconds(snapshot.lag),
        }
    }
}

#[derive(Serialize)]
struct CulpritView<'r> {
    watch: &'r str,
    cause: String,
    function: &'r str,
    place: Option<&'r str>,
    count: u64,
    over_budget: f64,
    /// Seconds since 1970.
    last_seen: f64,
}

impl<'r> CulpritView<'r> {
    fn of(culprit: &'r Culprit) -> Self {
        Self {
            watch: &culprit.watch,
            cause: culprit.cause.to_string(),
            function: &culprit.function,
            place: culprit.place.as_deref(),
            count: culprit.count,
            over_budget: seconds(culprit.over_budget),
            last_seen: timestamp(culprit.last_seen),
        }
    }
}

/// The lines that `Display` prints, from the innermost.
#[derive(Serialize)]
#[serde(transparent)]
struct StackView(Vec<String>);

impl StackView {
    fn of(stack: &Stack) -> Self {
        let text = stack.to_string();
        Self(text.lines().map(|line| line.trim().to_owned()).collect())
    }
}

#[derive(Serialize)]
struct TimeBreakdownView {
    on_cpu: f64,
    blocked: f64,
    starved: f64,
}

impl TimeBreakdownView {
    fn of(split: &TimeBreakdown) -> Self {
        Self {
            on_cpu: seconds(split.on_cpu),
            blocked: seconds(split.blocked),
            starved: seconds(split.starved),
        }
    }
}

#[derive(Serialize)]
struct AllowanceView<'r> {
    reason: &'r str,
    max: f64,
}

impl<'r> AllowanceView<'r> {
    fn of(allowance: &'r Allowance) -> Self {
        Self {
            reason: &allowance.reason,
            max: seconds(allowance.max),
        }
    }
}

#[derive(Serialize)]
struct OtherThreadView<'r> {
    thread: String,
    watches: Vec<&'r str>,
    stack: Option<&'r Stack>,
    no_stack: Option<&'static str>,
}

impl<'r> OtherThreadView<'r> {
    fn of(other: &'r OtherThread) -> Self {
        Self {
            thread: other.thread.to_string(),
            watches: other.watches.iter().map(|name| &**name).collect(),
            stack: other.stack.as_ref(),
            no_stack: other.no_stack,
        }
    }
}

/// Asserts that the JSON of a value has each public field of its type. The pattern names every field. So a new field does not
/// compile before it is in the list, and fails the test before it is in the JSON.
#[cfg(test)]
macro_rules! assert_json_has_public_fields {
    ($value:expr, $type:ident { $($public:ident),* $(,)? } $(private { $($private:ident),* })?) => {{
        let value = &$value;
        let $type { $($public: _,)* $($($private: _,)*)? } = value;
        let json = serde_json::to_value(value).unwrap();
        for field in [$(stringify!($public)),*] {
            assert!(json.get(field).is_some(), "{field} of {} in {json}", stringify!($type));
        }
        json
    }};
}

#[cfg(test)]
pub(crate) use assert_json_has_public_fields;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::report::Cause;
    use crate::report::StuckKind;
    use crate::report::ThreadInfo;
    use crate::report::{Path, Phase};
    use crate::tests::{MS, Scene};

    fn snapshot() -> RuntimeSnapshot {
        RuntimeSnapshot {
            runtime: "main".into(),
            queued: 1,
            workers: 2,
            parked: 3,
            lag: MS,
        }
    }

    #[test]
    fn health_json_has_every_public_field() {
        let health = Scene::new().watchdog.health();
        assert_json_has_public_fields!(
            health,
            Health {
                status,
                stalls,
                stuck_workers,
                busy_workers,
                oldest_stall,
                unseen
            }
        );
    }

    #[test]
    fn stuck_worker_json_has_every_public_field() {
        let stuck = StuckWorker {
            id: 1,
            phase: Phase::Running,
            kind: StuckKind::Busy,
            runtime: "main".into(),
            worker: 0,
            thread: Some(ThreadInfo::current()),
            path: Path::default(),
            elapsed: MS,
            budget: MS,
            cause: Cause::Computing,
            waiting_on: None,
            split: None,
            stack: None,
            no_stack: None,
            runtime_snapshot: Some(snapshot()),
            suppressed: 0,
        };
        assert_json_has_public_fields!(
            stuck,
            StuckWorker {
                id,
                phase,
                kind,
                runtime,
                worker,
                thread,
                path,
                elapsed,
                budget,
                cause,
                waiting_on,
                split,
                stack,
                no_stack,
                runtime_snapshot,
                suppressed,
            }
        );
    }

    #[test]
    fn parts_of_reports_have_every_public_field_in_json() {
        let json = assert_json_has_public_fields!(
            snapshot(),
            RuntimeSnapshot {
                runtime,
                queued,
                workers,
                parked,
                lag
            }
        );
        assert_eq!(json["lag"], json!(0.001));
        let split = TimeBreakdown::from_nanos(1, 2, 3);
        assert_json_has_public_fields!(
            split,
            TimeBreakdown {
                on_cpu,
                blocked,
                starved
            }
        );
        let allowance = Allowance::new("legacy".into(), MS);
        let json = assert_json_has_public_fields!(allowance, Allowance { reason, max });
        assert_eq!(json, json!({ "reason": "legacy", "max": 0.001 }));
        let other = OtherThread {
            thread: ThreadInfo::current(),
            watches: vec!["outer".into(), "inner".into()],
            stack: None,
            no_stack: None,
        };
        let json = assert_json_has_public_fields!(
            other,
            OtherThread {
                thread,
                watches,
                stack,
                no_stack
            }
        );
        assert_eq!(json["watches"], json!(["outer", "inner"]));
        let culprit = Culprit {
            watch: "w".into(),
            cause: Cause::Computing,
            function: "f".into(),
            place: None,
            count: 1,
            over_budget: MS,
            last_seen: SystemTime::now(),
        };
        assert_json_has_public_fields!(
            culprit,
            Culprit {
                watch,
                cause,
                function,
                place,
                count,
                over_budget,
                last_seen,
            }
        );
    }
}

//! Where stuck workers come in, from the sentinel.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::desk::{Admitted, Desk};
use super::outlet::Report;
use super::stuck_worker::StuckWorker;
use super::{Path, Phase};
use crate::runtime::{Guarded, Impact, OnStuck, Stuck};
use crate::slot::{Diagnosis, ReportState};
use crate::watch::name_of;

impl OnStuck for Desk {
    fn on_stuck(&self, guarded: &Guarded, stuck: Stuck, found: Diagnosis, told: &mut ReportState) {
        let Some(Admitted { id, suppressed }) =
            self.admit(&guarded.reports, *told, stuck.elapsed, stuck.budget)
        else {
            *told = ReportState::Suppressed;
            return;
        };
        *told = ReportState::Running { id };
        let report = describe(guarded, stuck, found, Phase::Running, id);
        self.send(
            guarded,
            StuckWorker {
                suppressed,
                ..report
            },
        );
    }

    fn went_on(&self, guarded: &Guarded, stuck: Stuck, found: Diagnosis, told: ReportState) {
        match told {
            ReportState::Running { id } => {
                let report = describe(guarded, stuck, found, Phase::Finished, id);
                self.send(guarded, report);
            }
            ReportState::Suppressed => self.leave_out(&guarded.reports),
            // A watched poll was reported in its place.
            ReportState::Unreported | ReportState::Ended => {}
        }
    }
}

impl Desk {
    fn send(&self, guarded: &Guarded, stuck: StuckWorker) {
        let suppressed = stuck.suppressed;
        let refused = self.offer(&Report::Stuck(Arc::new(stuck)));
        self.registry
            .unreported
            .dropped
            .fetch_add(refused as u64, Relaxed);
        if refused > 0 && refused == self.outlets.len() {
            // Nobody got to know what this one would have said of those before it.
            guarded.reports.leave_out(suppressed);
        }
    }
}

fn describe(
    guarded: &Guarded,
    stuck: Stuck,
    found: Diagnosis,
    phase: Phase,
    id: u64,
) -> StuckWorker {
    StuckWorker {
        id,
        phase,
        kind: stuck.kind,
        runtime: Arc::clone(&guarded.name),
        worker: stuck.worker,
        thread: stuck.thread,
        path: Path::new(stuck.watches.into_iter().filter_map(name_of).collect()),
        elapsed: Duration::from_nanos(stuck.elapsed),
        budget: Duration::from_nanos(stuck.budget),
        cause: found.cause,
        waits_for: found.waits_for,
        split: found.split,
        stack: found.stack,
        no_stack: found.no_stack,
        impact: Impact::on(guarded),
        suppressed: 0,
    }
}

//! Turns a stuck worker into a report. The sentinel calls this.

use std::sync::Arc;
use std::time::Duration;

use super::dispatcher::{Admission, Dispatcher};
use super::reporter_thread::Report;
use crate::report::{Path, Phase, StuckWorker};
use crate::runtime::{Guarded, Stuck, StuckWorkerSink, snapshot};
use crate::slot::{Diagnosis, ReportState};
use crate::watch::name_of;

impl StuckWorkerSink for Dispatcher {
    fn on_stuck(
        &self,
        guarded: &Guarded,
        stuck: Stuck,
        diagnosis: Diagnosis,
        state: &mut ReportState,
    ) {
        let limiter = &guarded.reports;
        let (elapsed_nanos, budget_nanos) = (stuck.elapsed_nanos, stuck.budget_nanos);
        let admission = self.admit_running(limiter, state, elapsed_nanos, budget_nanos);
        let Some(Admission { id, suppressed }) = admission else {
            return;
        };
        let report = StuckWorker {
            suppressed,
            ..report(guarded, stuck, diagnosis, Phase::Running, id)
        };
        self.send(limiter, Report::Stuck(Arc::new(report)));
    }

    fn on_continued(
        &self,
        guarded: &Guarded,
        stuck: Stuck,
        diagnosis: Diagnosis,
        state: ReportState,
    ) {
        match state {
            ReportState::Running { id } => {
                let report = report(guarded, stuck, diagnosis, Phase::Finished, id);
                self.send(&guarded.reports, Report::Stuck(Arc::new(report)));
            }
            ReportState::Suppressed => self.suppress(&guarded.reports),
            // The sentinel reported a watched poll instead of the worker.
            ReportState::Unreported | ReportState::Ended => {}
        }
    }
}

fn report(
    guarded: &Guarded,
    stuck: Stuck,
    diagnosis: Diagnosis,
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
        elapsed: Duration::from_nanos(stuck.elapsed_nanos),
        budget: Duration::from_nanos(stuck.budget_nanos),
        cause: diagnosis.cause,
        waiting_on: diagnosis.waiting_on,
        split: diagnosis.split,
        stack: diagnosis.stack,
        no_stack: diagnosis.no_stack,
        runtime_snapshot: snapshot(guarded),
        suppressed: 0,
    }
}

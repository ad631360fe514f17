//! The record of one poll that the sentinel has seen.

use std::sync::Arc;

use crate::attribution::{CpuSample, CpuSamples};
use crate::procfs::SchedCounts;
use crate::report::{Cause, OtherThread, TimeBreakdown};
use crate::stack::Stack;

/// Says whether one poll was reported.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum ReportState {
    #[default]
    Unreported,
    /// The sentinel reported the poll while it ran, under this id.
    Running { id: u64 },
    /// The rate limit suppressed a report of the running poll.
    Suppressed,
    /// The poll has ended. Its own thread reports what there is to report.
    Ended,
}

/// The result of a scan of one poll over its budget.
#[derive(Clone, Debug, Default)]
pub(crate) struct Diagnosis {
    pub(crate) cause: Cause,
    /// The path or socket behind a file descriptor, or the length of a sleep.
    pub(crate) waiting_on: Option<Arc<str>>,
    pub(crate) split: Option<TimeBreakdown>,
    pub(crate) stack: Option<Stack>,
    /// The thread did not answer the request for its stack in time. It may the next time.
    pub(crate) is_stack_late: bool,
    /// The thread has handed its worker to another one, so only the poll's own task waits.
    pub(crate) is_handed_over: bool,
    /// Why there is no stack, or only its innermost functions.
    pub(crate) no_stack: Option<&'static str>,
    pub(crate) other_threads: Arc<[OtherThread]>,
}

/// A request for the stack of a thread that waited in a system call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SignalDisturbance {
    /// The number of the system call.
    pub(crate) call: i64,
    /// The thread's counts before the request.
    pub(crate) sched_counts: SchedCounts,
}

/// The record of one poll. A slot has one for each depth.
///
/// All times are nanoseconds of the poll's charged time, unless the field says otherwise.
#[derive(Clone, Debug, Default)]
pub(crate) struct PollRecord {
    pub(super) seq: u64,
    pub(crate) report_state: ReportState,
    /// When the sentinel reports or diagnoses the poll again.
    pub(crate) next_report_at: u64,
    /// The earliest time of the next escalation step.
    pub(crate) next_step_at: u64,
    /// The number of escalation steps that were taken.
    pub(crate) steps_taken: usize,
    /// When the first of the two checks before an abort was made.
    pub(crate) first_abort_check_at: Option<u64>,
    /// The number of requests for a stack in a row without an answer, and when to repeat the request.
    pub(crate) late_stacks: u32,
    pub(crate) next_stack_at: Option<u64>,
    /// A request for the stack woke the thread in a system call. The thread may wait for a processor only because of
    /// that.
    pub(crate) disturbance: Option<SignalDisturbance>,
    /// How much of the charged time the last scan attributed to no code.
    pub(crate) uncharged: u64,
    /// The latest diagnosis.
    pub(crate) diagnosis: Option<Diagnosis>,
    /// The CPU samples from before the first scan of the poll, and from that scan.
    pub(super) first_samples: Option<(CpuSample, CpuSample)>,
}

impl PollRecord {
    pub(super) fn new(seq: u64) -> Self {
        Self {
            seq,
            ..Self::default()
        }
    }

    /// Makes the record of a poll that has ended. Nothing is added to it any more.
    pub(super) fn ended(seq: u64) -> Self {
        Self {
            report_state: ReportState::Ended,
            ..Self::new(seq)
        }
    }

    /// Returns whether the last scan found that the thread had handed its worker over.
    pub(crate) fn is_handed_over(&self) -> bool {
        let diagnosis = self.diagnosis.as_ref();
        diagnosis.is_some_and(|diagnosis| diagnosis.is_handed_over)
    }

    /// Returns whether the poll was reported while it ran.
    pub(crate) fn was_reported(&self) -> bool {
        matches!(self.report_state, ReportState::Running { .. })
    }

    /// Returns the CPU samples around a poll that began at `start`, up to `now`.
    pub(crate) fn cpu_samples(&self, start: u64, now: CpuSample) -> Option<CpuSamples> {
        let (earlier, seen) = self.first_samples?;
        let (before, within) = if seen.by <= start {
            (seen, None)
        } else if earlier.by <= start {
            (earlier, Some(seen))
        } else {
            // Both lie within the poll. The wait of the thread since its birth is an upper bound.
            (CpuSample::BIRTH, Some(earlier))
        };
        Some(CpuSamples {
            before,
            within,
            now,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    /// Makes a sample whose taker was interrupted between the clock and the counters.
    fn sample(at: u64, by: u64) -> CpuSample {
        CpuSample {
            at,
            by,
            ..CpuSample::BIRTH
        }
    }

    fn samples(earlier: CpuSample, seen: CpuSample, start: u64) -> CpuSamples {
        let record = PollRecord {
            first_samples: Some((earlier, seen)),
            ..PollRecord::default()
        };
        record.cpu_samples(start, sample(1_000, 1_000)).unwrap()
    }

    #[test]
    fn cpu_samples_count_as_of_their_latest_possible_moment() {
        let (earlier, seen) = (sample(100, 150), sample(400, 500));
        let (before, within) = (sample(100, 150), Some(500));
        for start in [150, 399, 450, 499] {
            let samples = samples(earlier, seen, start);
            assert_eq!((samples.before, samples.within_since()), (before, within));
        }
        let after = samples(earlier, seen, 500);
        assert_eq!((after.before, after.within_since()), (seen, None));
        let inside = samples(earlier, seen, 149);
        assert_eq!(
            (inside.before, inside.within_since()),
            (CpuSample::BIRTH, Some(150))
        );
    }
}

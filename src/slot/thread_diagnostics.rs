//! The cold state of a slot's thread: who it is, its CPU samples, the records of its polls and its allowances.
//!
//! Slow polls and the sentinel use it, behind a lock. A fast poll never does.

use super::allowances::Allowances;
use super::poll_record::PollRecord;
use super::slot_owner::SlotOwner;
use super::{FRAMES, FrameToken, InFlightPoll, depth_of};
use crate::attribution::CpuSample;
use crate::clock::Clock;
use crate::procfs::SchedCounts;
use crate::report::ThreadInfo;

/// The diagnostics of one thread.
#[derive(Default)]
pub(crate) struct ThreadDiagnostics {
    pub(crate) owner: Option<SlotOwner>,
    records: Vec<PollRecord>,
    pub(crate) allowances: Allowances,
}

impl ThreadDiagnostics {
    /// Returns the thread that owns the slot.
    pub(crate) fn thread(&self) -> Option<ThreadInfo> {
        self.owner.as_ref().map(|owner| owner.info.clone())
    }

    /// Takes a CPU sample of the thread, and returns it with the one before it. `at` is a clock reading of now.
    pub(crate) fn sample(&mut self, at: u64, clock: &Clock) -> Option<(CpuSample, CpuSample)> {
        let owner = self.owner.as_mut()?;
        let before = owner.latest;
        Some((before, owner.sample(at, clock)))
    }

    /// Returns the record of a poll in flight. Drops the record of an earlier poll at its depth.
    pub(crate) fn record(&mut self, poll: &InFlightPoll) -> &mut PollRecord {
        self.record_of(poll.seq)
    }

    /// Returns the record of a poll in flight, if there is one.
    pub(crate) fn existing_record(&self, poll: &InFlightPoll) -> Option<&PollRecord> {
        let mut records = self.records.iter();
        records.find(|record| record.seq == poll.seq)
    }

    /// Reads how often the thread ran, and how long it waited for a processor.
    pub(crate) fn sched_counts(&mut self) -> Option<SchedCounts> {
        self.owner.as_mut().and_then(SlotOwner::sched_counts)
    }

    /// Takes our own signal out of the samples of a thread that waits in `call`.
    ///
    /// If we signalled the thread in this same call and it ran exactly once since, to answer, then we caused its wait
    /// for a processor. The samples leave this wait out.
    pub(crate) fn excuse_disturbance(&mut self, poll: &InFlightPoll, call: i64) {
        let disturbance = self.record(poll).disturbance;
        let disturbance = disturbance.filter(|disturbance| disturbance.call == call);
        let excused = disturbance.zip(self.owner.as_mut());
        if excused.is_some_and(|(since, owner)| owner.excuse_disturbance(since.sched_counts)) {
            self.record(poll).disturbance = None;
        }
    }

    /// Returns the time that the thread waited for a processor only because a signal for its stack woke it.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn disturbed_nanos(&self) -> u64 {
        self.owner.as_ref().map_or(0, |owner| owner.disturbed_nanos)
    }

    /// Returns the clock reading of the latest CPU sample.
    pub(crate) fn sampled_at(&self) -> Option<u64> {
        self.owner.as_ref().map(|owner| owner.latest.at)
    }

    /// Returns whether a scan saw the poll before.
    pub(crate) fn was_seen(&mut self, poll: &InFlightPoll) -> bool {
        self.record(poll).first_samples.is_some()
    }

    /// Records the samples around the first scan of a poll. Later calls change nothing.
    pub(crate) fn mark_seen(&mut self, poll: &InFlightPoll, before: CpuSample, now: CpuSample) {
        let samples = &mut self.record(poll).first_samples;
        samples.get_or_insert((before, now));
    }

    /// Takes the record of a poll that has ended, so that nothing is added to it any more.
    ///
    /// Takes a CPU sample too, if `at` is given. Only the owning thread may call it.
    pub(crate) fn close(
        &mut self,
        token: FrameToken,
        at: Option<(u64, &Clock)>,
    ) -> (PollRecord, Option<CpuSample>) {
        let samples = at.and_then(|(at, clock)| self.sample(at, clock));
        let now = samples.map(|(_, now)| now);
        let Some(seq) = token.seq() else {
            return (PollRecord::default(), now);
        };
        let ended = PollRecord::ended(seq);
        let mut record = std::mem::replace(self.record_of(seq), ended);
        if record.first_samples.is_none() {
            // No scan saw the poll, but there is an earlier sample of its thread.
            record.first_samples = samples.map(|(before, _)| (before, before));
        }
        (record, now)
    }

    fn record_of(&mut self, seq: u64) -> &mut PollRecord {
        // Allocated when a scan first sees a poll of the thread.
        self.records.resize(FRAMES, PollRecord::default());
        let record = &mut self.records[depth_of(seq) % FRAMES];
        if record.seq != seq {
            *record = PollRecord::new(seq);
        }
        record
    }
}

#[cfg(all(test, target_os = "linux", not(any(miri, shotclock_loom))))]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::slot::{ReportState, SignalDisturbance};

    /// Returns the excused wait of a thread that we signalled in call 7, `runs` runs ago, and that waits in `call`.
    fn excused_nanos(diagnostics: &mut ThreadDiagnostics, runs: u64, call: i64) -> u64 {
        let poll = InFlightPoll::of_seq(0x101);
        loop {
            let now = diagnostics.sched_counts().unwrap();
            let before = diagnostics.disturbed_nanos();
            let since = SchedCounts {
                wait: now.wait / 2,
                count: now.count - runs,
            };
            diagnostics.record(&poll).disturbance = Some(SignalDisturbance {
                call: 7,
                sched_counts: since,
            });
            let excuse = |diagnostics: &mut ThreadDiagnostics| {
                diagnostics.excuse_disturbance(&poll, call);
                diagnostics.disturbed_nanos() - before
            };
            let (excused, again) = (excuse(diagnostics), excuse(diagnostics));
            // The scheduler may have run this thread once more in between.
            if diagnostics.sched_counts() == Some(now) {
                assert_eq!(again, excused, "once only");
                assert!(excused == 0 || excused == now.wait - since.wait);
                return excused;
            }
        }
    }

    #[test]
    fn mark_seen_keeps_the_first_samples_until_another_poll_has_the_depth() {
        let clock = Clock::new();
        let mut diagnostics = ThreadDiagnostics::default();
        assert_eq!(diagnostics.sampled_at(), None);
        diagnostics.owner = Some(SlotOwner::current());
        let (before, now) = diagnostics.sample(7, &clock).unwrap();
        assert_eq!(diagnostics.sampled_at(), Some(7));
        let (poll, next) = (InFlightPoll::of_seq(0x101), InFlightPoll::of_seq(0x201));
        assert!(!diagnostics.was_seen(&poll));
        diagnostics.mark_seen(&poll, before, now);
        diagnostics.mark_seen(&poll, now, now);
        assert!(diagnostics.was_seen(&poll));
        assert_eq!(diagnostics.record(&poll).first_samples, Some((before, now)));
        assert!(!diagnostics.was_seen(&next));
        assert!(!diagnostics.was_seen(&poll));
    }

    #[test]
    fn close_takes_the_record_and_leaves_an_ended_one() {
        let poll = InFlightPoll::of_seq(0x101);
        let mut diagnostics = ThreadDiagnostics::default();
        assert!(!diagnostics.record(&poll).was_reported());
        diagnostics.record(&poll).report_state = ReportState::Running { id: 1 };
        assert!(diagnostics.record(&poll).was_reported());
        let (record, sample) = diagnostics.close(FrameToken::new(0x101), None);
        let running = ReportState::Running { id: 1 };
        assert_eq!((record.report_state, sample), (running, None));
        let ended = diagnostics.record(&poll);
        assert_eq!(ended.report_state, ReportState::Ended);
        assert!(!ended.was_reported());
    }

    #[test]
    fn excuse_disturbance_needs_exactly_one_run_in_the_same_call() {
        let clock = Clock::new();
        let mut diagnostics = ThreadDiagnostics {
            owner: Some(SlotOwner::current()),
            ..ThreadDiagnostics::default()
        };
        let too_few = |counts: SchedCounts| counts.count < 2 || counts.wait == 0;
        while diagnostics.sched_counts().is_some_and(too_few) {
            std::thread::yield_now();
        }
        let wait = diagnostics.sample(0, &clock).unwrap().1.wait;
        assert_eq!(excused_nanos(&mut diagnostics, 0, 7), 0);
        assert_eq!(excused_nanos(&mut diagnostics, 2, 7), 0);
        assert_eq!(excused_nanos(&mut diagnostics, 1, 8), 0);
        assert!(excused_nanos(&mut diagnostics, 1, 7) >= wait.unwrap() / 2);
        // No sample contains the excused wait.
        let (counts, sample) = loop {
            let before = diagnostics.sched_counts();
            let sample = diagnostics.sample(0, &clock).unwrap().1;
            if diagnostics.sched_counts() == before {
                break (before.unwrap(), sample);
            }
        };
        let left = counts.wait.saturating_sub(diagnostics.disturbed_nanos());
        assert_eq!(sample.wait, Some(left));
        assert!(left < counts.wait);
    }
}

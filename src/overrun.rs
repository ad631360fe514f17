//! Floor 5: handles a poll that ended over its budget, on the poll's own thread.
//!
//! It takes the poll's record from the thread diagnostics, attributes the time, and passes both to the dispatcher.

use std::panic::Location;

use crate::attribution::{self, Attribution, AttributionInput, CpuSample, attribute};
use crate::clock::nanos_of;
use crate::liveness::silence_of_both;
use crate::procfs;
use crate::report::{Allowance, Cause, SectionKind, Syscall, ThreadInfo, TimeBreakdown};
use crate::slot::{Diagnosis, FrameToken, MAX_DEPTH, PollRecord, Seqs, Slot};
use crate::stolen_time::STOLEN_TIME;
use crate::suspension::{self, DELAYS, SUSPENSIONS};
use crate::sys;
use crate::watch::{EndDiagnosis, Overrun, Watch, shortest_budget};

/// A poll that has ended. Its times are nanoseconds.
#[derive(Clone, Copy)]
pub(crate) struct EndedPoll<'w> {
    pub(crate) watch: &'w Watch,
    pub(crate) location: &'static Location<'static>,
    pub(crate) kind: SectionKind,
    pub(crate) slot: Option<(&'static Slot, FrameToken)>,
    /// A raw reading of the clock.
    pub(crate) start: u64,
    pub(crate) elapsed: u64,
    pub(crate) charged: u64,
    pub(crate) budget: u64,
    /// False for a poll with slow polls inside: the sentinel may have reported it while it ran.
    pub(crate) is_slow: bool,
}

/// What the thread diagnostics knew of the poll.
#[derive(Default)]
struct Closed {
    record: PollRecord,
    sample: Option<CpuSample>,
    excused: u64,
    exceeded: Option<Allowance>,
    thread: Option<ThreadInfo>,
}

impl EndedPoll<'_> {
    pub(crate) fn report(self) {
        if sys::is_forked() {
            return self.count_unknown();
        }
        let closed = self.slot.map(|(slot, token)| self.close(slot, token));
        let closed = closed.unwrap_or_default();
        if !self.is_slow && !closed.record.was_reported() {
            return;
        }
        let outer_watches = self
            .slot
            .map(|(slot, token)| slot.outer_watches(token).collect());
        // The time under `allow_blocking` is not charged.
        let charged = self.charged.saturating_sub(closed.excused);
        let overrun = Overrun {
            kind: self.kind,
            elapsed_nanos: self.elapsed,
            charged_nanos: charged,
            budget: self.watch.budget(),
            location: self.location,
            outer_watches: outer_watches.unwrap_or_default(),
            thread: closed.thread.unwrap_or_else(ThreadInfo::current),
            slot: self.slot.map(|(slot, _)| slot.index()),
            seq: self.slot.and_then(|(_, token)| token.seq()),
            is_slow: self.is_slow,
            is_allowed: charged <= self.budget,
            exceeded_allowance: closed.exceeded,
        };
        let state = closed.record.report_state;
        let diagnosis = self.diagnose(charged, closed.record, closed.sample);
        self.record_overrun(charged, &diagnosis);
        let sink = &self.watch.watchdog().sink;
        sink.on_slow_poll(self.watch.counters(), overrun, state, diagnosis);
    }

    /// Counts the cause as unknown, and reports nothing: the child of a fork has no reporters, and must take no lock.
    fn count_unknown(&self) {
        if self.is_slow {
            self.watch.counters().causes.count(&Cause::Unknown);
        }
    }

    /// Raises the expected overrun of a contained watch, if the code itself was slow, as far as is known now.
    fn record_overrun(&self, charged: u64, diagnosis: &EndDiagnosis) {
        let is_own = matches!(
            diagnosis,
            EndDiagnosis::Now(known) if !matches!(known.cause, Cause::Starved | Cause::Suspended)
        );
        if is_own && self.is_slow {
            let over = charged.saturating_sub(self.budget);
            self.watch.counters().expected_overrun.record(over);
        }
    }

    fn close(&self, slot: &Slot, token: FrameToken) -> Closed {
        let clock = self.watch.clock();
        // The operating system knows nothing of a mocked clock's time.
        let is_sampled = clock.is_real() && self.elapsed >= attribution::MIN_NANOS;
        let now = clock.raw();
        let mut diagnostics = slot.diagnostics();
        let (record, sample) = diagnostics.close(token, is_sampled.then_some((now, clock)));
        let elapsed = |since| clock.nanos_between(since, now);
        let (mut excused, mut exceeded) = (0, None);
        // The allowances are on the machine's clock, which cannot be compared with a mocked one.
        if let Some(poll) = token.seq().filter(|_| clock.is_real()) {
            let around = slot.seqs();
            let polls: Seqs = around
                .iter()
                .copied()
                .chain([poll])
                .take(MAX_DEPTH)
                .collect();
            let allowances = &mut diagnostics.allowances;
            excused = allowances.excused(poll, self.start, &polls, elapsed);
            exceeded = allowances.exceeded(poll, self.start, &polls, elapsed);
            if self.is_slow {
                allowances.charge_inside(excused, &around);
            }
        }
        Closed {
            record,
            sample,
            excused,
            exceeded,
            thread: diagnostics.thread(),
        }
    }

    fn diagnose(&self, charged: u64, record: PollRecord, now: Option<CpuSample>) -> EndDiagnosis {
        let Some(now) = now else {
            let unknown = diagnosis(Attribution::Unknown, None, record.diagnosis);
            return EndDiagnosis::Now(unknown);
        };
        let clock = self.watch.clock();
        let samples = record.cpu_samples(self.start, now);
        let within = samples.and_then(|samples| samples.within_since());
        let (start, seen) = (self.start, record.diagnosis);
        // An allowed poll has the cause that it would have without the allowance.
        let charged = if charged > self.budget {
            charged
        } else {
            self.charged
        };
        // Up to the sample, which was taken a little after the end: the thread may have waited for a processor
        // between the two.
        let elapsed = clock.nanos_between(self.start, now.at);
        let input = AttributionInput {
            elapsed,
            charged: charged + elapsed.saturating_sub(self.elapsed),
            budget: self.budget,
            since_within: within.map_or(0, |since| clock.nanos_between(since, now.at)),
            before_start: samples.map_or(0, |samples| {
                clock.nanos_between(samples.before.at, self.start)
            }),
            suspended: 0,
            stolen: 0,
            delayed: 0,
            was_seen: seen.is_some(),
            waits_now: false,
        };
        // Reading the stolen time costs as much as all the rest, so only a poll that would be charged pays for it.
        let input = match attribute(input, samples.as_ref()).0 {
            Attribution::Starved | Attribution::Suspended => input,
            _ => AttributionInput {
                stolen: STOLEN_TIME.since(clock, self.start, self.processor()),
                ..input
            },
        };
        let was_seen = input.was_seen;
        let decide = move || {
            let input = AttributionInput {
                suspended: SUSPENSIONS.since(start),
                delayed: DELAYS.since(start),
                ..input
            };
            let (attribution, split) = attribute(input, samples.as_ref());
            diagnosis(attribution, split, seen)
        };
        // Processor time and the wait for it are certain. The rest may be a suspension that no thread of ours has
        // noticed yet, or the sentinel itself is not scheduled.
        let (attribution, _) = attribute(input, samples.as_ref());
        let max_silence = nanos_of(shortest_budget()) + suspension::MIN_NANOS;
        let may_be_unnoticed = || silence_of_both(clock, now.at) > max_silence;
        let is_doubtful = matches!(attribution, Attribution::Blocked | Attribution::Unknown)
            && (!was_seen || may_be_unnoticed());
        if is_doubtful {
            EndDiagnosis::Later(Box::new(decide))
        } else {
            EndDiagnosis::Now(decide())
        }
    }

    /// Returns the processor that runs the poll's thread.
    fn processor(&self) -> Option<u32> {
        let (slot, _) = self.slot?;
        let thread = slot.diagnostics().owner.as_ref()?.thread.clone()?;
        procfs::processor(&thread)
    }
}

/// Combines an attribution with what the last scan saw: the system call is known if a scan saw the poll wait in it.
pub(crate) fn diagnosis(
    attribution: Attribution,
    split: Option<TimeBreakdown>,
    seen: Option<Diagnosis>,
) -> Diagnosis {
    let mut seen = seen.unwrap_or_default();
    let cause = match (attribution, seen.cause) {
        // A cause that was proved while the poll ran stays.
        (Attribution::Starved, cause) if cause != Cause::Unknown => cause,
        (Attribution::Starved, _) => Cause::Starved,
        (Attribution::Suspended, _) => Cause::Suspended,
        (Attribution::Computing, _) => Cause::Computing,
        (Attribution::Blocked, Cause::Blocked(call)) => Cause::Blocked(call),
        (Attribution::Blocked, _) => Cause::Blocked(Syscall::default()),
        (Attribution::Unknown, cause) => cause,
    };
    if !matches!(cause, Cause::Blocked(_)) {
        seen.waiting_on = None;
    }
    Diagnosis {
        cause,
        split,
        ..seen
    }
}

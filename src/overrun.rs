//! Floor 5: what is done about a poll that ended over its budget, on its charged thread.

use std::panic::Location;

use crate::attribution::{self, Attribution, AttributionInput, CpuSample, judge};
use crate::cause::{Cause, Split, Syscall};
use crate::clock::nanos_of;
use crate::liveness::silence_of_both;
use crate::procfs;
use crate::slot::{
    Allowance, Diagnosis, FrameToken, Kind, MAX_DEPTH, PollRecord, Seqs, Slot, ThreadInfo,
};
use crate::stolen_time::STOLEN_TIME;
use crate::suspension::{self, DELAYS, SUSPENSIONS};
use crate::sys;
use crate::watch::{Judge, Slow, Watch, shortest_budget};

/// A poll that has ended. Its times are nanoseconds.
#[derive(Clone, Copy)]
pub(crate) struct Overrun<'w> {
    pub(crate) watch: &'w Watch,
    pub(crate) location: &'static Location<'static>,
    pub(crate) kind: Kind,
    pub(crate) slot: Option<(&'static Slot, FrameToken)>,
    /// A raw reading of the clock.
    pub(crate) start: u64,
    pub(crate) elapsed: u64,
    pub(crate) charged: u64,
    pub(crate) budget: u64,
    /// If not, it is here only because it may have been told of while it ran.
    pub(crate) slow: bool,
}

/// What the diagnostics of the slot knew of it.
#[derive(Default)]
struct Known {
    note: PollRecord,
    account: Option<CpuSample>,
    excused: u64,
    broken: Option<Allowance>,
    thread: Option<ThreadInfo>,
}

impl Overrun<'_> {
    pub(crate) fn report(self) {
        if sys::is_forked() {
            return self.count_only();
        }
        let known = self.slot.map(|(slot, mark)| self.close(slot, mark));
        let told = known.as_ref().is_some_and(|known| known.note.was_told());
        if !self.slow && !told {
            return;
        }
        let outer = self
            .slot
            .map(|(slot, mark)| slot.outer_watches(mark).collect());
        let Known {
            note,
            account,
            excused,
            broken,
            thread,
        } = known.unwrap_or_default();
        // The watchdog charges no poll with what was declared to be allowed.
        let charged = self.charged.saturating_sub(excused);
        let slow = Slow {
            kind: self.kind,
            elapsed: self.elapsed,
            charged,
            budget: self.watch.budget(),
            location: self.location,
            outer: outer.unwrap_or_default(),
            thread: thread.unwrap_or_else(ThreadInfo::current),
            slot: self.slot.map(|(slot, _)| slot.index()),
            seq: self.slot.and_then(|(_, mark)| mark.seq()),
            counts: self.slow,
            allowed: charged <= self.budget,
            broken,
        };
        let told = note.told;
        let judge = self.judge(charged, note, account);
        self.learn(charged, &judge);
        self.watch
            .watchdog()
            .slow
            .on_slow(self.watch.counters(), slow, told, judge);
    }

    /// In the child of a fork nobody reports, and a lock may stay locked for ever.
    fn count_only(&self) {
        if self.slow {
            self.watch.counters().causes.count(&Cause::Unknown);
        }
    }

    /// A contained watch learns by how much its polls overrun; not where it was nobody's fault, nor
    /// where it cannot be said yet.
    fn learn(&self, charged: u64, judge: &Judge) {
        let is_own = matches!(
            judge,
            Judge::Known(found) if !matches!(found.cause, Cause::Starved | Cause::Suspended)
        );
        if is_own && self.slow {
            let over = charged.saturating_sub(self.budget);
            self.watch.counters().expected_overrun.record(over);
        }
    }

    fn close(&self, slot: &Slot, mark: FrameToken) -> Known {
        let clock = self.watch.clock();
        // A mocked clock has nothing to do with what the operating system accounts for.
        let is_accounted = clock.is_real() && self.elapsed >= attribution::LEAST;
        let now = clock.raw();
        let mut diagnostics = slot.diagnostics();
        let (note, account) = diagnostics.close(mark, is_accounted.then_some((now, clock)));
        let elapsed = |since| clock.nanos_between(since, now);
        let (mut excused, mut broken) = (0, None);
        // Readings of a mocked clock cannot be compared with the machine's.
        if let Some(poll) = mark.seq().filter(|_| clock.is_real()) {
            let around = slot.seqs();
            let polls: Seqs = around
                .iter()
                .copied()
                .chain([poll])
                .take(MAX_DEPTH)
                .collect();
            let exceptions = &mut diagnostics.exceptions;
            excused = exceptions.excuse(poll, self.start, &polls, elapsed);
            broken = exceptions.broken(poll, self.start, &polls, elapsed);
            if self.slow {
                exceptions.blame(excused, &around);
            }
        }
        Known {
            excused,
            broken,
            note,
            account,
            thread: diagnostics.thread(),
        }
    }

    fn judge(&self, charged: u64, note: PollRecord, account: Option<CpuSample>) -> Judge {
        let clock = self.watch.clock();
        let Some(now) = account else {
            return Judge::Known(finding(Attribution::Unknown, None, note.finding));
        };
        let accounts = note.accounts(self.start, now);
        let within = accounts.and_then(|accounts| accounts.within_since());
        let (start, found) = (self.start, note.finding);
        // A poll that is allowed is slow for the reason for which it would be without that.
        let charged = if charged > self.budget {
            charged
        } else {
            self.charged
        };
        // Up to the account, which was taken a little after the end: this thread may have waited for
        // a processor between the two.
        let elapsed = clock.nanos_between(self.start, now.at);
        let case = AttributionInput {
            elapsed,
            charged: charged + elapsed.saturating_sub(self.elapsed),
            budget: self.budget,
            since_within: within.map_or(0, |since| clock.nanos_between(since, now.at)),
            before_start: accounts.map_or(0, |accounts| {
                clock.nanos_between(accounts.before.at, self.start)
            }),
            suspended: 0,
            stolen: 0,
            delayed: 0,
            is_seen: found.is_some(),
            waits_now: false,
        };
        // Asked only where something is to be held against it: reading it costs as much as all the rest.
        let case = match judge(case, accounts.as_ref()).0 {
            Attribution::Starved | Attribution::Suspended => case,
            _ => AttributionInput {
                stolen: STOLEN_TIME.since(clock, self.start, self.processor()),
                ..case
            },
        };
        let decide = move || {
            let case = AttributionInput {
                suspended: SUSPENSIONS.since(start),
                delayed: DELAYS.since(start),
                ..case
            };
            let (fault, split) = judge(case, accounts.as_ref());
            finding(fault, split, found)
        };
        // Processor time and the wait for it are certain. The rest may be a suspension that nobody
        // has noticed so far; or nobody looked, because the sentinel itself is not run.
        let (fault, _) = judge(case, accounts.as_ref());
        let most = nanos_of(shortest_budget()) + suspension::LEAST;
        let may_be_unnoticed = || silence_of_both(clock, now.at) > most;
        let is_doubtful = matches!(fault, Attribution::Blocked | Attribution::Unknown)
            && (!case.is_seen || may_be_unnoticed());
        if is_doubtful {
            Judge::Later(Box::new(decide))
        } else {
            Judge::Known(decide())
        }
    }
}

impl Overrun<'_> {
    /// On which its thread runs.
    fn processor(&self) -> Option<u32> {
        let (slot, _) = self.slot?;
        let thread = slot.diagnostics().owner.as_ref()?.thread.clone()?;
        procfs::processor(&thread)
    }
}

/// The cause in words: which system call it was is known if it was looked at while it waited.
pub(crate) fn finding(
    fault: Attribution,
    split: Option<Split>,
    found: Option<Diagnosis>,
) -> Diagnosis {
    let mut found = found.unwrap_or_default();
    let cause = match (fault, found.cause) {
        // What was certain while it ran is certain now.
        (Attribution::Starved, seen) if seen != Cause::Unknown => seen,
        (Attribution::Starved, _) => Cause::Starved,
        (Attribution::Suspended, _) => Cause::Suspended,
        (Attribution::Computing, _) => Cause::Computing,
        (Attribution::Blocked, Cause::Blocked(call)) => Cause::Blocked(call),
        (Attribution::Blocked, _) => Cause::Blocked(Syscall::default()),
        (Attribution::Unknown, seen) => seen,
    };
    if !matches!(cause, Cause::Blocked(_)) {
        found.waits_for = None;
    }
    Diagnosis {
        cause,
        split,
        ..found
    }
}

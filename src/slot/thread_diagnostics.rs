//! What is known of a thread and its polls beside the slot: written and read when a poll is slow, or
//! by the sentinel, and never by a fast poll.

use super::allowances::Exceptions;
use super::poll_record::PollRecord;
use super::slot_owner::{Owner, ThreadInfo};
use super::{FRAMES, FrameToken, InFlightPoll, depth_of};
use crate::attribution::CpuSample;
use crate::clock::Clock;
use crate::procfs::SchedCounts;

/// See the module.
#[derive(Default)]
pub(crate) struct ThreadDiagnostics {
    pub(crate) owner: Option<Owner>,
    notes: Vec<PollRecord>,
    pub(crate) exceptions: Exceptions,
}

impl ThreadDiagnostics {
    /// The thread that owns the slot.
    pub(crate) fn thread(&self) -> Option<ThreadInfo> {
        self.owner.as_ref().map(|owner| owner.info.clone())
    }

    /// Takes the thread's account, and returns it with the one before it. `at` is a reading of the clock.
    pub(crate) fn account(&mut self, at: u64, clock: &Clock) -> Option<(CpuSample, CpuSample)> {
        let owner = self.owner.as_mut()?;
        let before = owner.latest;
        Some((before, owner.account(at, clock)))
    }

    /// The note of a poll in flight. That of an earlier poll at its depth is thrown away.
    pub(crate) fn note(&mut self, poll: &InFlightPoll) -> &mut PollRecord {
        self.note_of(poll.seq)
    }

    /// The same, if there is one.
    pub(crate) fn noted(&self, poll: &InFlightPoll) -> Option<&PollRecord> {
        let mut notes = self.notes.iter();
        notes.find(|note| note.seq == poll.seq)
    }

    /// What the thread had of the processors so far.
    pub(crate) fn turns(&mut self) -> Option<SchedCounts> {
        self.owner.as_mut().and_then(Owner::turns)
    }

    /// To be called where a poll's thread waits in a call. If that is the one in which it was asked for
    /// its stack, and it had one turn since, to answer, it would not have wanted a processor meanwhile:
    /// what it waited for one was our doing, and is taken out of its accounts.
    pub(crate) fn excuse_disturbance(&mut self, poll: &InFlightPoll, call: i64) {
        let asked = self.note(poll).disturbed.filter(|asked| asked.call == call);
        let is_excused = asked.zip(self.owner.as_mut());
        if is_excused.is_some_and(|(asked, owner)| owner.excuse_disturbance(asked.turns)) {
            self.note(poll).disturbed = None;
        }
    }

    /// For how long in all the thread has waited for a processor only because it was asked for its
    /// stack in its sleep, in nanoseconds.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn disturbed(&self) -> u64 {
        self.owner.as_ref().map_or(0, |owner| owner.disturbed)
    }

    /// When the latest account was taken.
    pub(crate) fn accounted_at(&self) -> Option<u64> {
        self.owner.as_ref().map(|owner| owner.latest.at)
    }

    /// Whether a poll was noted to be in flight.
    pub(crate) fn has_seen(&mut self, poll: &InFlightPoll) -> bool {
        self.note(poll).seen.is_some()
    }

    /// Notes that a poll is in flight, where it was not seen before.
    pub(crate) fn see(&mut self, poll: &InFlightPoll, before: CpuSample, now: CpuSample) {
        self.note(poll).seen.get_or_insert((before, now));
    }

    /// The note of a poll that has ended, which nothing can be added to any more, and its thread's
    /// account if `at` is a moment of the machine, by that clock. Owner only.
    pub(crate) fn close(
        &mut self,
        mark: FrameToken,
        at: Option<(u64, &Clock)>,
    ) -> (PollRecord, Option<CpuSample>) {
        let account = at.and_then(|(at, clock)| self.account(at, clock));
        let now = account.map(|(_, now)| now);
        let Some(seq) = mark.seq() else {
            return (PollRecord::default(), now);
        };
        let ended = PollRecord::ended(seq);
        let mut note = std::mem::replace(self.note_of(seq), ended);
        if note.seen.is_none() {
            // Nobody saw it, but there is an earlier account of its thread.
            note.seen = account.map(|(before, _)| (before, before));
        }
        (note, now)
    }

    fn note_of(&mut self, seq: u64) -> &mut PollRecord {
        // Allocated when the first poll of the thread is looked at.
        self.notes.resize(FRAMES, PollRecord::default());
        let note = &mut self.notes[depth_of(seq) % FRAMES];
        if note.seq != seq {
            *note = PollRecord::of(seq);
        }
        note
    }
}

#[cfg(all(test, target_os = "linux", not(any(miri, shotclock_loom))))]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::slot::{ReportState, SignalDisturbance};

    /// Of a thread that was asked so many turns ago in one call, and now waits in another or the same.
    fn excused(diagnostics: &mut ThreadDiagnostics, turns: u64, call: i64) -> u64 {
        let poll = InFlightPoll::of_seq(0x101);
        loop {
            let (now, before) = (diagnostics.turns().unwrap(), diagnostics.disturbed());
            let since = SchedCounts {
                wait: now.wait / 2,
                count: now.count - turns,
            };
            diagnostics.note(&poll).disturbed = Some(SignalDisturbance {
                call: 7,
                turns: since,
            });
            let excuse = |diagnostics: &mut ThreadDiagnostics| {
                diagnostics.excuse_disturbance(&poll, call);
                diagnostics.disturbed() - before
            };
            let (excused, again) = (excuse(diagnostics), excuse(diagnostics));
            // Unless this thread was given one more turn just then.
            if diagnostics.turns() == Some(now) {
                assert_eq!(again, excused, "once only");
                assert!(excused == 0 || excused == now.wait - since.wait);
                return excused;
            }
        }
    }

    #[test]
    fn what_was_seen_first_of_a_poll_is_noted_until_another_has_its_depth() {
        let clock = Clock::new();
        let mut diagnostics = ThreadDiagnostics::default();
        assert_eq!(diagnostics.accounted_at(), None);
        diagnostics.owner = Some(Owner::current());
        let (before, now) = diagnostics.account(7, &clock).unwrap();
        assert_eq!(diagnostics.accounted_at(), Some(7));
        let (poll, next) = (InFlightPoll::of_seq(0x101), InFlightPoll::of_seq(0x201));
        assert!(!diagnostics.has_seen(&poll));
        diagnostics.see(&poll, before, now);
        diagnostics.see(&poll, now, now);
        assert!(diagnostics.has_seen(&poll));
        assert_eq!(diagnostics.note(&poll).seen, Some((before, now)));
        assert!(!diagnostics.has_seen(&next));
        assert!(!diagnostics.has_seen(&poll));
    }

    #[test]
    fn of_a_poll_that_has_ended_nothing_is_told() {
        let poll = InFlightPoll::of_seq(0x101);
        let mut diagnostics = ThreadDiagnostics::default();
        assert!(!diagnostics.note(&poll).was_told());
        diagnostics.note(&poll).told = ReportState::Running { id: 1 };
        assert!(diagnostics.note(&poll).was_told());
        let (note, account) = diagnostics.close(FrameToken::new(0x101), None);
        assert_eq!((note.told, account), (ReportState::Running { id: 1 }, None));
        assert_eq!(diagnostics.note(&poll).told, ReportState::Ended);
        assert!(!diagnostics.note(&poll).was_told());
    }

    #[test]
    fn a_wait_is_excused_only_if_there_was_one_turn_since() {
        let clock = Clock::new();
        let mut diagnostics = ThreadDiagnostics {
            owner: Some(Owner::current()),
            ..ThreadDiagnostics::default()
        };
        let too_few = |turns: SchedCounts| turns.count < 2 || turns.wait == 0;
        while diagnostics.turns().is_some_and(too_few) {
            std::thread::yield_now();
        }
        let wait = diagnostics.account(0, &clock).unwrap().1.wait;
        assert_eq!(excused(&mut diagnostics, 0, 7), 0);
        assert_eq!(excused(&mut diagnostics, 2, 7), 0);
        assert_eq!(excused(&mut diagnostics, 1, 8), 0);
        assert!(excused(&mut diagnostics, 1, 7) >= wait.unwrap() / 2);
        // What was excused is in no account.
        let (turns, account) = loop {
            let (before, account) = (
                diagnostics.turns(),
                diagnostics.account(0, &clock).unwrap().1,
            );
            if diagnostics.turns() == before {
                break (before.unwrap(), account);
            }
        };
        let left = turns.wait.saturating_sub(diagnostics.disturbed());
        assert_eq!(account.wait, Some(left));
        assert!(left < turns.wait);
    }
}

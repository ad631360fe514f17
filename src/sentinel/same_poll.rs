//! Proves whether a worker is still in the poll of the last scan.
//!
//! Unchanged counters of the runtime prove nothing: tokio stores them once in `event_interval` ticks, and each tick may
//! poll up to three more tasks from the LIFO slot. So the sentinel compares two observations of the thread. Evidence,
//! strongest first:
//!
//! 1. The thread ran a probe of ours: it is in another poll.
//! 2. The outermost watched poll is the same, and so is the task's poll around it.
//! 3. The thread slept in both observations and did not run between them: it is in one system call.
//! 4. A breakpoint behind the call that polls tasks ([`Breakpoints`](super::poll_breakpoints::Breakpoints)) was hit, or was not.
//!
//! Without such evidence, nothing is proved, and the sentinel reports no single poll.

use super::run_state::{RunState, run_state};
use crate::procfs::{self, SyscallState};
use crate::report::SectionKind;
use crate::slot::Slot;

/// What two consecutive observations of a worker prove.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Continuity {
    SamePoll,
    AnotherPoll,
    Unproved,
}

/// One observation of a worker's thread.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Observation {
    /// The thread key. `None` if the thread is unknown: then nothing is proved.
    thread: Option<u64>,
    /// The number of our probes that the worker ran.
    probes_run: u64,
    /// The sequence number of the outermost watched poll in flight.
    poll: Option<u64>,
    sleep: Option<SleepState>,
}

/// A sleeping thread, in a system call or waiting for a page of memory.
#[derive(Clone, Copy, Debug, PartialEq)]
struct SleepState {
    /// How often the thread has run.
    runs: u64,
    call: Option<i64>,
}

/// The runs that an answer takes: the answer wakes the sentinel, which often gets the processor before the thread sleeps
/// again.
const MAX_RUNS_TO_ANSWER: u64 = 2;

impl SleepState {
    /// Returns whether a thread sleeps in the same call again after it answered a request for its stack.
    fn continues(self, before: Self) -> bool {
        let runs = self.runs.checked_sub(before.runs);
        self.call == before.call && runs.is_some_and(|runs| runs <= MAX_RUNS_TO_ANSWER)
    }
}

impl Observation {
    /// Observes the thread of a slot. `thread` is the number of its key.
    pub(super) fn of(slot: &Slot, thread: u64, probes_run: u64) -> Self {
        // A guard of `enter` may be kept across an `.await`, and then outlives a poll.
        let stack = slot.read();
        let mut polls = stack
            .iter()
            .filter(|poll| poll.kind != SectionKind::Entered);
        Self {
            thread: Some(thread),
            probes_run,
            poll: polls.next().map(|poll| poll.seq),
            sleep: sleep_state(slot),
        }
    }

    /// Returns what this observation proves together with the one before it.
    pub(super) fn continuity(&self, before: &Self) -> Continuity {
        if self.thread.is_none() || self.thread != before.thread {
            Continuity::Unproved
        } else if self.probes_run != before.probes_run {
            Continuity::AnotherPoll
        } else if self.has_same_poll(before) || self.has_same_sleep(before) {
            Continuity::SamePoll
        } else {
            Continuity::Unproved
        }
    }

    fn has_same_poll(&self, before: &Self) -> bool {
        self.poll.is_some() && self.poll == before.poll
    }

    fn has_same_sleep(&self, before: &Self) -> bool {
        self.sleep.is_some() && self.sleep == before.sleep
    }

    /// Returns the same, where a request for the stack may lie between the two observations.
    ///
    /// Then the thread ran to answer, and sleeps in the same call again.
    pub(super) fn continuity_after_a_sample(&self, before: &Self) -> Continuity {
        match (self.sleep, before.sleep) {
            (Some(now), Some(then)) if now.continues(then) => self.continuity(&Self {
                sleep: self.sleep,
                ..*before
            }),
            _ => self.continuity(before),
        }
    }

    /// Returns whether the thread sleeps now, and did not in the observation before.
    pub(super) fn has_fallen_asleep_since(&self, before: &Self) -> bool {
        self.sleep.is_some() && before.sleep.is_none()
    }

    pub(super) fn is_asleep(&self) -> bool {
        self.sleep.is_some()
    }
}

/// Reads the number of runs first. A run between the two readings is then missing, and shows in the next observation as
/// one more run.
fn sleep_state(slot: &Slot) -> Option<SleepState> {
    let (runs, thread) = {
        let mut diagnostics = slot.diagnostics();
        (
            diagnostics.sched_counts()?.count,
            diagnostics.owner.as_ref()?.thread.clone()?,
        )
    };
    let syscall_state = procfs::syscall_state(&thread).ok();
    let call = match &syscall_state {
        Some(SyscallState::Waits(waits)) => Some(waits.number),
        _ => None,
    };
    (run_state(&thread, syscall_state.as_ref()) == RunState::Asleep)
        .then_some(SleepState { runs, call })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASLEEP: SleepState = SleepState {
        runs: 7,
        call: Some(202),
    };

    fn observation() -> Observation {
        Observation {
            thread: Some(1),
            probes_run: 5,
            poll: None,
            sleep: None,
        }
    }

    fn asleep(runs: u64, call: i64) -> Observation {
        Observation {
            sleep: Some(SleepState {
                runs,
                call: Some(call),
            }),
            ..observation()
        }
    }

    fn polling(poll: u64) -> Observation {
        Observation {
            poll: Some(poll),
            ..observation()
        }
    }

    #[test]
    fn continuity_with_unchanged_counters_alone_is_unproved() {
        assert_eq!(
            observation().continuity(&observation()),
            Continuity::Unproved
        );
        assert_eq!(
            Observation::default().continuity(&Observation::default()),
            Continuity::Unproved
        );
    }

    #[test]
    fn continuity_of_a_sleep_without_a_run_between_is_the_same_poll() {
        assert_eq!(
            asleep(7, 202).continuity(&asleep(7, 202)),
            Continuity::SamePoll
        );
        assert_eq!(
            asleep(8, 202).continuity(&asleep(7, 202)),
            Continuity::Unproved
        );
        assert_eq!(
            asleep(7, 202).continuity(&observation()),
            Continuity::Unproved
        );
        assert_eq!(
            observation().continuity(&asleep(7, 202)),
            Continuity::Unproved
        );
    }

    #[test]
    fn continuity_after_a_sample_allows_the_runs_of_the_answer_in_the_same_call() {
        let before = asleep(7, 202);
        for (after, continuity) in [
            (asleep(7, 202), Continuity::SamePoll),
            (asleep(8, 202), Continuity::SamePoll),
            (asleep(8, 230), Continuity::Unproved),
            (asleep(9, 202), Continuity::SamePoll),
            (asleep(10, 202), Continuity::Unproved),
            (asleep(6, 202), Continuity::Unproved),
            (observation(), Continuity::Unproved),
        ] {
            assert_eq!(
                after.continuity_after_a_sample(&before),
                continuity,
                "{after:?}"
            );
        }
        assert_eq!(
            asleep(8, 202).continuity_after_a_sample(&observation()),
            Continuity::Unproved
        );
        assert_eq!(
            polling(3).continuity_after_a_sample(&polling(3)),
            Continuity::SamePoll
        );
    }

    #[test]
    fn has_fallen_asleep_needs_an_awake_observation_before() {
        assert!(asleep(7, 202).has_fallen_asleep_since(&observation()));
        assert!(!asleep(8, 202).has_fallen_asleep_since(&asleep(7, 202)));
        assert!(!observation().has_fallen_asleep_since(&observation()));
    }

    #[test]
    fn continuity_of_a_watched_poll_in_flight_is_the_same_poll() {
        assert_eq!(polling(3).continuity(&polling(3)), Continuity::SamePoll);
        assert_eq!(polling(4).continuity(&polling(3)), Continuity::Unproved);
        assert_eq!(polling(3).continuity(&observation()), Continuity::Unproved);
    }

    #[test]
    fn continuity_after_a_probe_is_another_poll() {
        let before = Observation {
            sleep: Some(ASLEEP),
            ..polling(3)
        };
        let now = Observation {
            probes_run: 6,
            ..before
        };
        assert_eq!(now.continuity(&before), Continuity::AnotherPoll);
    }

    #[test]
    fn continuity_across_threads_is_unproved() {
        let before = polling(3);
        let now = Observation {
            thread: Some(2),
            ..before
        };
        assert_eq!(now.continuity(&before), Continuity::Unproved);
    }
}

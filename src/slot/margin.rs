//! What is known of a thread and its polls beside the slot: written and read when a poll is slow, or
//! by the sentinel, and never by a fast poll.

use std::fmt;
use std::sync::Arc;
use std::thread::ThreadId;

use super::exceptions::Exceptions;
use super::{FRAMES, InFlight, Mark, depth_of};
use crate::cause::{Cause, Split};
use crate::proc::{Schedstat, Turns};
use crate::stack::Stack;
use crate::sys::Thread;
use crate::verdict::{Account, Accounts};

/// The thread that a poll held. `Display` prints its name if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThreadInfo {
    /// The name, as its builder gave it.
    pub name: Option<Arc<str>>,
    /// The identity of the thread within the process.
    pub id: ThreadId,
}

impl ThreadInfo {
    pub(crate) fn current() -> Self {
        let thread = std::thread::current();
        Self {
            name: thread.name().map(Arc::from),
            id: thread.id(),
        }
    }
}

impl fmt::Display for ThreadInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name),
            None => write!(f, "{:?}", self.id),
        }
    }
}

/// The thread that owns a slot at present, and what is kept open to look at it.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) info: ThreadInfo,
    /// `None` where the operating system does not tell.
    pub(crate) thread: Option<Thread>,
    /// Opened when the thread is first looked at.
    schedstat: Option<Option<Schedstat>>,
    /// The latest account of it.
    latest: Account,
    /// For how many nanoseconds it has waited for a processor only because it was asked for its stack
    /// in its sleep. That wait is our doing, and in no account.
    disturbed: u64,
}

impl Owner {
    pub(crate) fn current() -> Self {
        Self {
            info: ThreadInfo::current(),
            thread: Thread::current(),
            schedstat: None,
            latest: Account::BIRTH,
            disturbed: 0,
        }
    }

    /// Asks what the thread has been accounted so far; `at` is the moment.
    fn account(&mut self, at: u64) -> Account {
        let wait = self.turns().map(|turns| turns.wait);
        Account {
            at,
            cpu: self.thread.as_ref().and_then(Thread::cpu_time),
            wait: wait.map(|wait| wait.saturating_sub(self.disturbed)),
        }
    }

    fn turns(&mut self) -> Option<Turns> {
        let open = || self.thread.as_ref().and_then(Schedstat::open);
        let schedstat = self.schedstat.get_or_insert_with(open);
        schedstat.as_ref().and_then(Schedstat::read)
    }
}

/// What has been told of one poll.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Told {
    #[default]
    Nothing,
    /// It was reported while it ran, under this id.
    Running { id: u64 },
    /// It was to be reported while it ran, and the limit of the second was reached.
    LeftOut,
    /// It has ended, and whoever ended it says what there is to say.
    Ended,
}

/// Another thread, at the moment when a poll was stuck. `Display` prints the thread, its polls and
/// its stack.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OtherThread {
    /// The thread.
    pub thread: ThreadInfo,
    /// The names of the watches of its polls in flight, outermost first.
    pub watches: Vec<Arc<str>>,
    /// What it was doing.
    pub stack: Option<Stack>,
}

impl fmt::Display for OtherThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "meanwhile on {}: {}", self.thread, names(&self.watches))?;
        match &self.stack {
            Some(stack) => write!(f, "\n{stack}"),
            None => Ok(()),
        }
    }
}

fn names(watches: &[Arc<str>]) -> String {
    // A name may hold a line break; a line of a log may not.
    let names: Vec<_> = watches
        .iter()
        .map(|name| name.escape_debug().to_string())
        .collect();
    names.join(" > ")
}

/// What was found of a poll while it was stuck.
#[derive(Clone, Debug, Default)]
pub(crate) struct Finding {
    pub(crate) cause: Cause,
    /// The path or socket behind a file descriptor, or a duration.
    pub(crate) waits_for: Option<Arc<str>>,
    pub(crate) split: Option<Split>,
    pub(crate) stack: Option<Stack>,
    /// The thread was asked for its stack, and did not answer in time: it may the next time.
    pub(crate) is_stack_late: bool,
    pub(crate) others: Arc<[OtherThread]>,
}

/// What is noted of one poll, by its depth.
#[derive(Clone, Debug, Default)]
pub(crate) struct Note {
    opening: u64,
    pub(crate) told: Told,
    /// When it is to be looked at again, in nanoseconds of its own.
    pub(crate) again_at: u64,
    /// Nor is a step of its escalation to be taken before, in nanoseconds of its own.
    pub(crate) again_for_step: u64,
    /// How many steps of an escalation have been taken.
    pub(crate) steps_taken: usize,
    /// When the first of two looks was made before the process is ended, in nanoseconds of its age.
    pub(crate) condemned_at: Option<u64>,
    /// How often its thread was asked for its stack and did not answer, and when to ask again.
    pub(crate) late_stacks: u32,
    pub(crate) again_for_stack: Option<u64>,
    /// The latest that was found.
    pub(crate) finding: Option<Finding>,
    /// The accounts before it, if it was seen, and when it was seen first.
    seen: Option<(Account, Account)>,
}

impl Note {
    /// Whether it was reported while it ran.
    pub(crate) fn was_told(&self) -> bool {
        matches!(self.told, Told::Running { .. })
    }

    /// The accounts around a poll that began at `start`, up to `now`.
    pub(crate) fn accounts(&self, start: u64, now: Account) -> Option<Accounts> {
        let (earlier, seen) = self.seen?;
        let (before, within) = if seen.at <= start {
            (seen, None)
        } else if earlier.at <= start {
            (earlier, Some(seen))
        } else {
            // Both are from within. What the thread has waited since it began is surely enough.
            (Account::BIRTH, Some(earlier))
        };
        Some(Accounts {
            before,
            within,
            now,
        })
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Margin {
    pub(crate) owner: Option<Owner>,
    notes: Vec<Note>,
    pub(crate) exceptions: Exceptions,
}

impl Margin {
    /// The thread that owns the slot.
    pub(crate) fn thread(&self) -> Option<ThreadInfo> {
        self.owner.as_ref().map(|owner| owner.info.clone())
    }

    /// Takes the thread's account, and returns it with the one before it.
    pub(crate) fn account(&mut self, at: u64) -> Option<(Account, Account)> {
        let owner = self.owner.as_mut()?;
        let now = owner.account(at);
        let before = std::mem::replace(&mut owner.latest, now);
        Some((before, now))
    }

    /// The note of a poll in flight. That of an earlier poll at its depth is thrown away.
    pub(crate) fn note(&mut self, poll: &InFlight) -> &mut Note {
        self.note_of(poll.opening)
    }

    /// What the thread had of the processors so far.
    pub(crate) fn turns(&mut self) -> Option<Turns> {
        self.owner.as_mut().and_then(Owner::turns)
    }

    /// Takes what the thread has waited since a reading out of its accounts, if it had one turn since:
    /// the one in which it gave its stack.
    pub(crate) fn excuse_disturbance(&mut self, since: Turns) {
        let one_more = |now: &Turns| now.count == since.count + 1;
        let waited = self
            .turns()
            .filter(one_more)
            .map(|now| now.wait - since.wait);
        if let Some(owner) = &mut self.owner {
            owner.disturbed += waited.unwrap_or_default();
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
    pub(crate) fn has_seen(&mut self, poll: &InFlight) -> bool {
        self.note(poll).seen.is_some()
    }

    /// Notes that a poll is in flight, where it was not seen before.
    pub(crate) fn see(&mut self, poll: &InFlight, before: Account, now: Account) {
        self.note(poll).seen.get_or_insert((before, now));
    }

    /// The note of a poll that has ended, which nothing can be added to any more, and its thread's
    /// account if `at` is a moment of the machine. Owner only.
    pub(crate) fn close(&mut self, mark: Mark, at: Option<u64>) -> (Note, Option<Account>) {
        let account = at.and_then(|at| self.account(at));
        let now = account.map(|(_, now)| now);
        let Some(opening) = mark.opening() else {
            return (Note::default(), now);
        };
        let ended = Note {
            opening,
            told: Told::Ended,
            ..Note::default()
        };
        let mut note = std::mem::replace(self.note_of(opening), ended);
        if note.seen.is_none() {
            // Nobody saw it, but there is an earlier account of its thread.
            note.seen = account.map(|(before, _)| (before, before));
        }
        (note, now)
    }

    fn note_of(&mut self, opening: u64) -> &mut Note {
        // Allocated when the first poll of the thread is looked at.
        self.notes.resize(FRAMES, Note::default());
        let note = &mut self.notes[depth_of(opening) % FRAMES];
        if note.opening != opening {
            *note = Note {
                opening,
                ..Note::default()
            };
        }
        note
    }
}

#[cfg(all(test, target_os = "linux", not(any(miri, shotclock_loom))))]
mod tests {
    use super::*;

    /// Excuses a disturbance that began so many turns ago, and says how much was excused.
    fn excused(margin: &mut Margin, turns: u64) -> u64 {
        loop {
            let (now, before) = (margin.turns().unwrap(), margin.disturbed());
            margin.excuse_disturbance(Turns {
                wait: 0,
                count: now.count - turns,
            });
            // Unless this thread was given one more turn just then.
            if margin.turns() == Some(now) {
                return margin.disturbed() - before;
            }
        }
    }

    #[test]
    fn a_wait_is_excused_only_if_there_was_one_turn_since() {
        let mut margin = Margin {
            owner: Some(Owner::current()),
            ..Margin::default()
        };
        while margin.turns().is_some_and(|turns| turns.count < 2) {
            std::thread::yield_now();
        }
        let wait = margin.account(0).unwrap().1.wait;
        assert_eq!((excused(&mut margin, 0), excused(&mut margin, 2)), (0, 0));
        assert!(excused(&mut margin, 1) >= wait.unwrap());
        // What was excused is in no account.
        let (turns, account) = loop {
            let (before, account) = (margin.turns(), margin.account(0).unwrap().1);
            if margin.turns() == before {
                break (before.unwrap(), account);
            }
        };
        let left = turns.wait.saturating_sub(margin.disturbed());
        assert_eq!(account.wait, Some(left));
        assert!(left < turns.wait);
    }
}

//! What is known of a thread and its polls beside the slot: written and read when a poll is slow, or
//! by the sentinel, and never by a fast poll.

use std::fmt;
use std::sync::Arc;
use std::thread::ThreadId;

use super::{FRAMES, InFlight, Mark, depth_of};

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

/// The thread that owns a slot at present.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) info: ThreadInfo,
}

impl Owner {
    pub(crate) fn current() -> Self {
        Self {
            info: ThreadInfo::current(),
        }
    }
}

/// What has been told of one poll.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Told {
    #[default]
    Nothing,
    /// It was reported while it ran, under this id; and it is again when it has run for so many
    /// nanoseconds of its own.
    Running { id: u64, again_at: u64 },
    /// It was to be reported while it ran, and the limit of the second was reached.
    LeftOut,
    /// It has ended, and whoever ended it says what there is to say.
    Ended,
}

/// What is noted of one poll, by its depth.
#[derive(Clone, Debug, Default)]
pub(crate) struct Note {
    opening: u64,
    pub(crate) told: Told,
}

impl Note {
    /// Whether it was reported while it ran.
    pub(crate) fn was_told(&self) -> bool {
        matches!(self.told, Told::Running { .. })
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Margin {
    pub(crate) owner: Option<Owner>,
    notes: [Note; FRAMES],
}

impl Margin {
    /// The thread that owns the slot.
    pub(crate) fn thread(&self) -> Option<ThreadInfo> {
        self.owner.as_ref().map(|owner| owner.info.clone())
    }

    /// The note of a poll in flight. That of an earlier poll at its depth is thrown away.
    pub(crate) fn note(&mut self, poll: &InFlight) -> &mut Note {
        self.note_of(poll.opening)
    }

    /// The note of a poll that has ended, which nothing can be added to any more. Owner only.
    pub(crate) fn close(&mut self, mark: Mark) -> Note {
        let Some(opening) = mark.opening() else {
            return Note::default();
        };
        let ended = Note {
            opening,
            told: Told::Ended,
        };
        std::mem::replace(self.note_of(opening), ended)
    }

    fn note_of(&mut self, opening: u64) -> &mut Note {
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

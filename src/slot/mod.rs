//! Floor 2: what one thread publishes of its polls in flight.
//!
//! A slot belongs to one thread at a time, its *owner*: the only one that writes to it. Any thread
//! may [`read`](Slot::read) it. Polls nest, so a slot is a small stack of [`Frame`]s.
//!
//! # Invariants
//!
//! 1. Only the owner writes: to `state`, to the frames, and to every watch's cells that carry the
//!    slot's index. Plain loads and stores therefore count exactly; there is no shared
//!    read-modify-write.
//! 2. `state` packs a serial number (upper 56 bits) and the depth (lower 8). Every change of depth
//!    raises the serial, and so does vacating a frame: no value of `state` ever comes back, and while
//!    it is the opening of the poll on top, nothing has happened inside that poll.
//! 3. Frames `1..=depth` describe polls in flight, outermost first. Frame 0 is the ground: it
//!    gathers what the outermost polls hand down, and is never reported.
//! 4. What a frame says of its poll is written only while `depth` is below it. While it is in
//!    flight its sums (`nested`, `blamed`) only grow, a guard that is dropped out of order may
//!    vacate it: then it names no watch; and one that goes by ticks may be made exact, once: `start`
//!    is written first, then `watch` without that mark.
//! 5. Nothing in a slot is a pointer into something that can go away: watches are named by id.
//!    A reader can be arbitrarily late without touching freed memory.
//! 6. Slots are never freed. A thread that ends gives its slot back, and the next new thread takes
//!    it over, counters and all: nothing needs to be merged, and memory is bounded by the largest
//!    number of threads that ever polled at once.
//!
//! The memory orderings: `begin` writes the frame between a release fence and a release store of
//! `state`; `read` loads `state` (acquire), the frames, then an acquire fence and `state` again. If
//! the reader saw any value of a later poll in a frame, the fences order the change of `state` that
//! preceded it before the second load, so the two loads differ (invariant 2) and the reading is
//! thrown away. The orderings are modelled with loom, in `models`.

mod doze;
mod exceptions;
mod frame;
mod kind;
mod lease;
mod margin;
mod nest;
mod note;
mod owner;
mod read;
mod ticked;

use std::marker::PhantomData;
use std::panic::Location;
use std::sync::atomic::Ordering::{Relaxed, Release};

use arrayvec::ArrayVec;

use crate::sync::{
    AtomicBool, AtomicU64, ModelledGuard, ModelledLock, add_single_writer, fence, unless_broken,
};

pub(crate) use doze::{DOZE, Doze};
pub use exceptions::Allowance;
pub(crate) use exceptions::Exceptions;
use frame::Frame;
use kind::BY_TICKS;
pub use kind::Kind;
pub(crate) use lease::{Seat, all, current, hold, is_current, release};
pub(crate) use margin::Margin;
pub(crate) use nest::{InFlight, Nest, Standing, Standings};
pub use note::OtherThread;
pub(crate) use note::{Disturbed, Finding, Note, Told};
pub(crate) use owner::Owner;
pub use owner::ThreadInfo;

/// How many watches deep polls are told apart. What is nested deeper counts as part of the poll at
/// this depth: it has its place in its own histogram, but its time and its blame are the outer's.
pub(crate) const MAX_DEPTH: usize = if cfg!(shotclock_loom) { 3 } else { 15 };

/// With the ground. A power of two, so that a masked depth is always an index.
const FRAMES: usize = MAX_DEPTH + 1;
const _: () = assert!(FRAMES.is_power_of_two());

const DEPTH_BITS: u32 = 8;
const DEPTH_MASK: u64 = (1 << DEPTH_BITS) - 1;

/// One more serial number in `state`.
const SERIAL: u64 = 1 << DEPTH_BITS;

/// No watch: the ground, or a frame that was vacated.
const NO_WATCH: u64 = u64::MAX;

/// The opening of a frame that was vacated: closed while what was begun later is still open.
const VACATED: u64 = 0;
/// The opening of the ground. Not vacated, and of depth 0, which no mark has.
const GROUND: u64 = SERIAL;
/// The opening that a poll has which is nested too deep to have a frame. No frame ever has it.
const TOO_DEEP: u64 = u64::MAX;

/// One thread's polls in flight. Aligned so that two threads' slots never share a cache line (nor
/// the pair of lines that the prefetcher of common x86-64 processors takes together).
#[repr(align(128))]
pub(crate) struct Slot {
    state: AtomicU64,
    index: usize,
    /// How many threads have had it and ended.
    tenancy: AtomicU64,
    /// What is slow on this thread is not to be reported: it is itself reporting.
    mute: AtomicBool,
    frames: [Frame; FRAMES],
    /// What is known of this thread and of its polls that the hot path never looks at.
    margin: ModelledLock<Margin>,
}

/// What is published of a poll that begins.
#[derive(Clone, Copy)]
pub(crate) struct Opened {
    /// The id of the watch.
    pub(crate) watch: u64,
    pub(crate) kind: Kind,
    /// A raw reading of the watch's clock.
    pub(crate) start: u64,
    /// Whether `start` is a tick: then the poll began after it.
    pub(crate) by_ticks: bool,
    /// Nanoseconds.
    pub(crate) budget: u64,
    pub(crate) location: &'static Location<'static>,
    /// The stack pointer, or 0 where it is not known.
    pub(crate) stack: usize,
}

/// What [`Slot::begin`] gives and [`Slot::end`] takes back: the opening of the frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    opening: u64,
    /// A mark is worth something only on the thread that made it.
    not_send: PhantomData<*const ()>,
}

/// The end of a poll, seen from its place in the nest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Share {
    /// Nanoseconds less those of the watched polls inside.
    pub(crate) self_time: u64,
    /// Nanoseconds less those of the slow polls inside that were blamed already.
    pub(crate) own: u64,
    /// Whether `own` is over the budget.
    pub(crate) slow: bool,
    /// Whether there were slow polls inside, so that `own` is less than the whole.
    pub(crate) blamed: bool,
}

/// The numbers of polls in flight on one thread, outermost first.
pub(crate) type Openings = ArrayVec<u64, MAX_DEPTH>;

impl Slot {
    fn new(index: usize) -> Self {
        let opening = |depth| if depth == 0 { GROUND } else { VACATED };
        Self {
            state: AtomicU64::new(0),
            index,
            tenancy: AtomicU64::new(0),
            mute: AtomicBool::new(false),
            frames: std::array::from_fn(|depth| Frame::new(opening(depth))),
            margin: ModelledLock::new(Margin::default()),
        }
    }

    /// The number of this slot, for tables by thread. Small and dense.
    #[inline]
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Publishes that a poll began. Owner only.
    #[inline]
    pub(crate) fn begin(&self, poll: Opened) -> Mark {
        // Both the serial and the depth are one more.
        let opening = self.state.load(Relaxed) + SERIAL + 1;
        let depth = (opening & DEPTH_MASK) as usize;
        let Some(frame) = self.frames.get(depth) else {
            return Mark::new(TOO_DEEP);
        };
        fence(Release, "begin-fence");
        let by_ticks = if poll.by_ticks { BY_TICKS } else { 0 };
        frame
            .watch
            .store(poll.kind.tag(poll.watch) | by_ticks, Relaxed);
        frame.start.store(poll.start, Relaxed);
        frame.budget.store(poll.budget, Relaxed);
        frame.location.set(poll.location);
        frame.stack.store(poll.stack as u64, Relaxed);
        frame.opening.store(opening, Relaxed);
        frame.nested.store(0, Relaxed);
        frame.blamed.store(0, Relaxed);
        self.state
            .store(opening, unless_broken("begin-publish", Release));
        Mark::new(opening)
    }

    /// Takes a poll of `elapsed` nanoseconds back out of the nest. Owner only.
    ///
    /// `scoped` says that everything begun inside has ended by now or never will on this thread,
    /// as when a poll returns: what is still open above is cut off.
    #[inline]
    pub(crate) fn end(&self, mark: Mark, elapsed: u64, budget: u64, scoped: bool) -> Share {
        let state = self.state.load(Relaxed);
        let top = self.frame(state);
        if top.opening.load(Relaxed) != mark.opening {
            return self.end_out_of_order(mark, elapsed, budget, scoped);
        }
        // The serial is one more, the depth one less.
        let mut below = state + SERIAL - 1;
        if self.frame(below).opening.load(Relaxed) == VACATED {
            below = self.skip_vacated(below);
        }
        let share = self.settle(mark, below, elapsed, budget);
        self.state
            .store(below, unless_broken("end-publish", Release));
        share
    }

    /// Takes a poll back out of the nest that is in no books: what was inside it counts as if it had
    /// been directly inside the one around it. Owner only.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn withdraw(&self, mark: Mark) {
        let Some(below) = self.below(mark) else {
            return;
        };
        let (frame, outer) = (self.frame(mark.opening), self.frame(below));
        add_single_writer(&outer.nested, frame.nested.load(Relaxed));
        add_single_writer(&outer.blamed, frame.blamed.load(Relaxed));
        self.state.store(below, Release);
    }

    /// The ids of the watches around the one that `mark` belongs to, outermost first. Owner only.
    pub(crate) fn outer_watches(&self, mark: Mark) -> impl Iterator<Item = u64> {
        let outer = self.frames.get(1..mark.depth()).unwrap_or_default();
        let tags = outer.iter().map(|frame| frame.watch.load(Relaxed));
        let is_watch = |tag: &u64| *tag != NO_WATCH && !Kind::of(*tag).is_off_the_books();
        tags.filter(is_watch).map(Kind::watch_of)
    }

    /// The openings of the polls in flight, outermost first. Owner only.
    pub(crate) fn openings(&self) -> Openings {
        let frames = self.frames_in_flight();
        frames.map(|frame| frame.opening.load(Relaxed)).collect()
    }

    /// When they began, as raw readings of the clocks of their watches. Owner only.
    pub(crate) fn starts(&self) -> ArrayVec<u64, MAX_DEPTH> {
        let frames = self.frames_in_flight();
        frames.map(|frame| frame.start.load(Relaxed)).collect()
    }

    fn frames_in_flight(&self) -> impl Iterator<Item = &Frame> {
        let depth = depth_of(self.state.load(Relaxed));
        let frames = self.frames.get(1..=depth).unwrap_or_default().iter();
        frames.filter(|frame| frame.opening.load(Relaxed) != VACATED)
    }

    /// Whether reports of this thread's polls are to be left out, because it reports itself.
    pub(crate) fn is_mute(&self) -> bool {
        self.mute.load(Relaxed)
    }

    /// Owner only.
    pub(crate) fn set_mute(&self, mute: bool) {
        self.mute.store(mute, Relaxed);
    }

    /// What is known beside the polls themselves. Never held while foreign code runs.
    pub(crate) fn margin(&self) -> ModelledGuard<'_, Margin> {
        self.margin.lock()
    }

    /// The same for whoever only asks how things stand. `None` if another thread keeps it for longer than it
    /// takes to use it: that thread is held up, and must hold up no other one.
    #[cfg(not(shotclock_loom))]
    pub(crate) fn margin_soon(&self) -> Option<ModelledGuard<'_, Margin>> {
        /// Two milliseconds: the sentinel reads two small files at most while it has it.
        const LOOKS: u32 = 40;
        const WAIT: std::time::Duration = std::time::Duration::from_micros(50);
        (0..LOOKS).find_map(|look| {
            if look > 0 {
                std::thread::sleep(WAIT);
            }
            self.margin.try_lock()
        })
    }

    /// The same where nothing is ever held up.
    #[cfg(shotclock_loom)]
    pub(crate) fn margin_soon(&self) -> Option<ModelledGuard<'_, Margin>> {
        Some(self.margin())
    }

    /// The frame at the depth of a `state`.
    #[inline]
    fn frame(&self, state: u64) -> &Frame {
        &self.frames[state as usize % FRAMES]
    }

    /// Hands the sums of the frame that `mark` opened down to the one at the depth of `below`.
    #[inline]
    fn settle(&self, mark: Mark, below: u64, elapsed: u64, budget: u64) -> Share {
        let (frame, outer) = (self.frame(mark.opening), self.frame(below));
        let blamed = frame.blamed.load(Relaxed);
        let own = elapsed.saturating_sub(blamed);
        let slow = own > budget;
        add_single_writer(&outer.nested, elapsed);
        add_single_writer(&outer.blamed, if slow { elapsed } else { blamed });
        Share {
            self_time: elapsed.saturating_sub(frame.nested.load(Relaxed)),
            own,
            slow,
            blamed: blamed > 0,
        }
    }

    /// `state` less the vacated frames at its top. The ground is never vacated.
    #[cold]
    fn skip_vacated(&self, mut state: u64) -> u64 {
        while self.frame(state).opening.load(Relaxed) == VACATED {
            state -= 1;
        }
        state
    }

    /// The state below the frame that `mark` opened, wherever in the nest it is. `None` if it has none
    /// any more: it is too deep to have one, or was cut off by an outer poll.
    fn below(&self, mark: Mark) -> Option<u64> {
        let state = self.state.load(Relaxed);
        let opening = self.frame(mark.opening).opening.load(Relaxed);
        if mark.depth() > depth_of(state) || opening != mark.opening {
            return None;
        }
        let serial = (state & !DEPTH_MASK) + SERIAL;
        Some(self.skip_vacated(serial | (mark.depth() as u64 - 1)))
    }

    #[cold]
    fn end_out_of_order(&self, mark: Mark, elapsed: u64, budget: u64, scoped: bool) -> Share {
        let Some(below) = self.below(mark) else {
            // The time is the outer poll's.
            return Share {
                self_time: 0,
                own: 0,
                slow: false,
                blamed: false,
            };
        };
        let share = self.settle(mark, below, elapsed, budget);
        if scoped {
            self.state.store(below, Release);
        } else {
            // What was begun later is still open: leave its frames where they are.
            let frame = self.frame(mark.opening);
            frame.watch.store(NO_WATCH, Relaxed);
            frame.opening.store(VACATED, Relaxed);
            let state = self.state.load(Relaxed);
            self.state.store(state + SERIAL, Release);
        }
        share
    }
}

impl Mark {
    #[inline]
    fn new(opening: u64) -> Self {
        Self {
            opening,
            not_send: PhantomData,
        }
    }

    fn depth(self) -> usize {
        depth_of(self.opening)
    }

    /// The number of the poll on its thread, which no other one ever has there. `None` if it was
    /// nested too deep to be told apart.
    pub(crate) fn opening(self) -> Option<u64> {
        (self.opening != TOO_DEEP).then_some(self.opening)
    }
}

/// How many polls began or ended on a thread between two states of its slot.
pub(crate) fn changes_between(before: u64, now: u64) -> u64 {
    (now >> DEPTH_BITS).saturating_sub(before >> DEPTH_BITS)
}

fn depth_of(opening: u64) -> usize {
    (opening & DEPTH_MASK) as usize
}

#[cfg(all(test, shotclock_loom))]
mod models;
#[cfg(all(test, not(shotclock_loom)))]
mod tests;

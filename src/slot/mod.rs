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
//!    it is the seq of the poll on top, nothing has happened inside that poll.
//! 3. Frames `1..=depth` describe polls in flight, outermost first. Frame 0 is the ground: it
//!    gathers what the outermost polls hand down, and is never reported.
//! 4. What a frame says of its poll is written only while `depth` is below it. While it is in
//!    flight its sums (`nested`, `charged_inside`) only grow, a guard that is dropped out of order may
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

mod allowances;
mod frame;
mod kind;
mod poll_record;
mod poll_stack;
mod read;
mod sentinel_parker;
mod slot_owner;
mod slots;
mod thread_diagnostics;
mod ticked_polls;

use std::marker::PhantomData;
use std::panic::Location;
use std::sync::atomic::Ordering::{Relaxed, Release};

use arrayvec::ArrayVec;

use crate::sync::{
    AtomicBool, AtomicU64, ModelledGuard, ModelledLock, add_single_writer, fence, unless_broken,
};

pub use allowances::Allowance;
pub(crate) use allowances::Exceptions;
use frame::Frame;
use kind::BY_TICKS;
pub use kind::Kind;
pub use poll_record::OtherThread;
pub(crate) use poll_record::{Diagnosis, PollRecord, ReportState, SignalDisturbance};
pub(crate) use poll_stack::{BudgetStatus, BudgetStatuses, InFlightPoll, PollStack};
pub(crate) use sentinel_parker::{SENTINEL_PARKER, SentinelParker};
pub(crate) use slot_owner::Owner;
pub use slot_owner::ThreadInfo;
pub(crate) use slots::{ThreadKey, all, current, hold, is_current, release};
pub(crate) use thread_diagnostics::ThreadDiagnostics;

/// How many watches deep polls are told apart. What is nested deeper counts as part of the poll at
/// this depth: it has its place in its charged histogram, but its time and its blame are the outer's.
pub(crate) const MAX_DEPTH: usize = if cfg!(shotclock_loom) { 3 } else { 15 };

/// With the ground. A power of two, so that a masked depth is always an index.
const FRAMES: usize = MAX_DEPTH + 1;
const _: () = assert!(FRAMES.is_power_of_two());

const DEPTH_BITS: u32 = 8;
const DEPTH_MASK: u64 = (1 << DEPTH_BITS) - 1;

/// One more serial number in `state`.
const SEQ_STEP: u64 = 1 << DEPTH_BITS;

/// No watch: the ground, or a frame that was vacated.
const NO_WATCH: u64 = u64::MAX;

/// The seq of a frame that was vacated: closed while what was begun later is still open.
const TOMBSTONE: u64 = 0;
/// The seq of the ground. Not vacated, and of depth 0, which no mark has.
const ROOT_SEQ: u64 = SEQ_STEP;
/// The seq that a poll has which is nested too deep to have a frame. No frame ever has it.
const TOO_DEEP_SEQ: u64 = u64::MAX;

/// One thread's polls in flight. Aligned so that two threads' slots never share a cache line (nor
/// the pair of lines that the prefetcher of common x86-64 processors takes together).
#[repr(align(128))]
pub(crate) struct Slot {
    state: AtomicU64,
    index: usize,
    /// How many threads have had it and ended.
    generation: AtomicU64,
    /// What is slow on this thread is not to be reported: it is itself reporting.
    mute: AtomicBool,
    frames: [Frame; FRAMES],
    /// What is known of this thread and of its polls that the hot path never looks at.
    diagnostics: ModelledLock<ThreadDiagnostics>,
}

/// What is published of a poll that begins.
#[derive(Clone, Copy)]
pub(crate) struct PollStart {
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

/// What [`Slot::begin`] gives and [`Slot::end`] takes back: the seq of the frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameToken {
    seq: u64,
    /// A mark is worth something only on the thread that made it.
    not_send: PhantomData<*const ()>,
}

/// The end of a poll, seen from its place in the nest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PollTimes {
    /// Nanoseconds less those of the watched polls inside.
    pub(crate) self_time: u64,
    /// Nanoseconds less those of the slow polls inside that were charged_inside already.
    pub(crate) charged: u64,
    /// Whether `charged` is over the budget.
    pub(crate) is_slow: bool,
    /// Whether there were slow polls inside, so that `charged` is less than the whole.
    pub(crate) charged_inside: bool,
}

/// The numbers of polls in flight on one thread, outermost first.
pub(crate) type Seqs = ArrayVec<u64, MAX_DEPTH>;

impl Slot {
    fn new(index: usize) -> Self {
        let seq = |depth| if depth == 0 { ROOT_SEQ } else { TOMBSTONE };
        Self {
            state: AtomicU64::new(0),
            index,
            generation: AtomicU64::new(0),
            mute: AtomicBool::new(false),
            frames: std::array::from_fn(|depth| Frame::new(seq(depth))),
            diagnostics: ModelledLock::new(ThreadDiagnostics::default()),
        }
    }

    /// The number of this slot, for tables by thread. Small and dense.
    #[inline]
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Publishes that a poll began. Owner only.
    #[inline]
    pub(crate) fn begin(&self, poll: PollStart) -> FrameToken {
        // Both the serial and the depth are one more.
        let seq = self.state.load(Relaxed) + SEQ_STEP + 1;
        let depth = (seq & DEPTH_MASK) as usize;
        let Some(frame) = self.frames.get(depth) else {
            return FrameToken::new(TOO_DEEP_SEQ);
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
        frame.seq.store(seq, Relaxed);
        frame.nested.store(0, Relaxed);
        frame.charged_inside.store(0, Relaxed);
        self.state
            .store(seq, unless_broken("begin-publish", Release));
        FrameToken::new(seq)
    }

    /// Takes a poll of `elapsed` nanoseconds back out of the nest. Owner only.
    ///
    /// `scoped` says that everything begun inside has ended by now or never will on this thread,
    /// as when a poll returns: what is still open above is cut off.
    #[inline]
    pub(crate) fn end(
        &self,
        mark: FrameToken,
        elapsed: u64,
        budget: u64,
        scoped: bool,
    ) -> PollTimes {
        let state = self.state.load(Relaxed);
        let top = self.frame(state);
        if top.seq.load(Relaxed) != mark.seq {
            return self.end_out_of_order(mark, elapsed, budget, scoped);
        }
        // The serial is one more, the depth one less.
        let mut below = state + SEQ_STEP - 1;
        if self.frame(below).seq.load(Relaxed) == TOMBSTONE {
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
    pub(crate) fn withdraw(&self, mark: FrameToken) {
        let Some(below) = self.below(mark) else {
            return;
        };
        let (frame, outer) = (self.frame(mark.seq), self.frame(below));
        add_single_writer(&outer.nested, frame.nested.load(Relaxed));
        add_single_writer(&outer.charged_inside, frame.charged_inside.load(Relaxed));
        self.state.store(below, Release);
    }

    /// The ids of the watches around the one that `mark` belongs to, outermost first. Owner only.
    pub(crate) fn outer_watches(&self, mark: FrameToken) -> impl Iterator<Item = u64> {
        let outer = self.frames.get(1..mark.depth()).unwrap_or_default();
        let tags = outer.iter().map(|frame| frame.watch.load(Relaxed));
        let is_watch = |tag: &u64| *tag != NO_WATCH && !Kind::of(*tag).is_off_the_books();
        tags.filter(is_watch).map(Kind::watch_of)
    }

    /// The seqs of the polls in flight, outermost first. Owner only.
    pub(crate) fn seqs(&self) -> Seqs {
        let frames = self.frames_in_flight();
        frames.map(|frame| frame.seq.load(Relaxed)).collect()
    }

    /// When they began, as raw readings of the clocks of their watches. Owner only.
    pub(crate) fn starts(&self) -> ArrayVec<u64, MAX_DEPTH> {
        let frames = self.frames_in_flight();
        frames.map(|frame| frame.start.load(Relaxed)).collect()
    }

    fn frames_in_flight(&self) -> impl Iterator<Item = &Frame> {
        let depth = depth_of(self.state.load(Relaxed));
        let frames = self.frames.get(1..=depth).unwrap_or_default().iter();
        frames.filter(|frame| frame.seq.load(Relaxed) != TOMBSTONE)
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
    pub(crate) fn diagnostics(&self) -> ModelledGuard<'_, ThreadDiagnostics> {
        self.diagnostics.lock()
    }

    /// The same for whoever only asks how things stand. `None` if another thread keeps it for longer than it
    /// takes to use it: that thread is held up, and must hold up no other one.
    #[cfg(not(shotclock_loom))]
    pub(crate) fn diagnostics_unless_held(&self) -> Option<ModelledGuard<'_, ThreadDiagnostics>> {
        /// Two milliseconds: the sentinel reads two small files at most while it has it.
        const LOOKS: u32 = 40;
        const WAIT: std::time::Duration = std::time::Duration::from_micros(50);
        (0..LOOKS).find_map(|look| {
            if look > 0 {
                std::thread::sleep(WAIT);
            }
            self.diagnostics.try_lock()
        })
    }

    /// The same where nothing is ever held up.
    #[cfg(shotclock_loom)]
    pub(crate) fn diagnostics_unless_held(&self) -> Option<ModelledGuard<'_, ThreadDiagnostics>> {
        Some(self.diagnostics())
    }

    /// The frame at the depth of a `state`.
    #[inline]
    fn frame(&self, state: u64) -> &Frame {
        &self.frames[state as usize % FRAMES]
    }

    /// Hands the sums of the frame that `mark` opened down to the one at the depth of `below`.
    #[inline]
    fn settle(&self, mark: FrameToken, below: u64, elapsed: u64, budget: u64) -> PollTimes {
        let (frame, outer) = (self.frame(mark.seq), self.frame(below));
        let charged_inside = frame.charged_inside.load(Relaxed);
        let charged = elapsed.saturating_sub(charged_inside);
        let is_slow = charged > budget;
        add_single_writer(&outer.nested, elapsed);
        add_single_writer(
            &outer.charged_inside,
            if is_slow { elapsed } else { charged_inside },
        );
        PollTimes {
            self_time: elapsed.saturating_sub(frame.nested.load(Relaxed)),
            charged,
            is_slow,
            charged_inside: charged_inside > 0,
        }
    }

    /// `state` less the vacated frames at its top. The ground is never vacated.
    #[cold]
    fn skip_vacated(&self, mut state: u64) -> u64 {
        while self.frame(state).seq.load(Relaxed) == TOMBSTONE {
            state -= 1;
        }
        state
    }

    /// The state below the frame that `mark` opened, wherever in the nest it is. `None` if it has none
    /// any more: it is too deep to have one, or was cut off by an outer poll.
    fn below(&self, mark: FrameToken) -> Option<u64> {
        let state = self.state.load(Relaxed);
        let seq = self.frame(mark.seq).seq.load(Relaxed);
        if mark.depth() > depth_of(state) || seq != mark.seq {
            return None;
        }
        let serial = (state & !DEPTH_MASK) + SEQ_STEP;
        Some(self.skip_vacated(serial | (mark.depth() as u64 - 1)))
    }

    #[cold]
    fn end_out_of_order(
        &self,
        mark: FrameToken,
        elapsed: u64,
        budget: u64,
        scoped: bool,
    ) -> PollTimes {
        let Some(below) = self.below(mark) else {
            // The time is the outer poll's.
            return PollTimes {
                self_time: 0,
                charged: 0,
                is_slow: false,
                charged_inside: false,
            };
        };
        let share = self.settle(mark, below, elapsed, budget);
        if scoped {
            self.state.store(below, Release);
        } else {
            // What was begun later is still open: leave its frames where they are.
            let frame = self.frame(mark.seq);
            frame.watch.store(NO_WATCH, Relaxed);
            frame.seq.store(TOMBSTONE, Relaxed);
            let state = self.state.load(Relaxed);
            self.state.store(state + SEQ_STEP, Release);
        }
        share
    }
}

impl FrameToken {
    #[inline]
    fn new(seq: u64) -> Self {
        Self {
            seq,
            not_send: PhantomData,
        }
    }

    fn depth(self) -> usize {
        depth_of(self.seq)
    }

    /// The number of the poll on its thread, which no other one ever has there. `None` if it was
    /// nested too deep to be told apart.
    pub(crate) fn seq(self) -> Option<u64> {
        (self.seq != TOO_DEEP_SEQ).then_some(self.seq)
    }
}

/// How many polls began or ended on a thread between two states of its slot.
pub(crate) fn changes_between(before: u64, now: u64) -> u64 {
    (now >> DEPTH_BITS).saturating_sub(before >> DEPTH_BITS)
}

fn depth_of(seq: u64) -> usize {
    (seq & DEPTH_MASK) as usize
}

#[cfg(all(test, shotclock_loom))]
mod models;
#[cfg(all(test, not(shotclock_loom)))]
mod tests;

//! Floor 2: publishes the polls in flight of each thread.
//!
//! A slot belongs to one thread at a time, its *owner*, and only the owner writes to it. Any thread may
//! [`read`](Slot::read) it. Polls nest, so a slot is a small stack of [`PollFrame`]s.
//!
//! # Invariants
//!
//! 1. Only the owner writes: to `state`, to the frames, and to the cells of each watch that carry the slot's index. So
//!    plain loads and stores count exactly, without a shared read-modify-write.
//! 2. `state` packs a sequence number (upper 56 bits) and the depth (lower 8 bits). Each change of the depth increases
//!    the sequence number, and so does a tombstone. So no value of `state` ever comes back. While `state` equals the
//!    `seq` of the frame on top, nothing has happened inside that frame's poll.
//! 3. Frames `1..=depth` describe polls in flight, outermost first. Frame 0 is the root: it collects the sums of the
//!    outermost polls, and is never reported.
//! 4. The owner writes a frame only while `depth` is below it, with three exceptions. The sums `nested` and
//!    `charged_inside` of a frame in flight only grow. A guard that is dropped out of order turns its frame into a
//!    tombstone, which names no watch. A ticked poll may be made exact, once: the owner writes `start` first, and then
//!    `watch` without the ticked token.
//! 5. A slot holds no pointer to anything that can be freed: it names watches by id. So a reader may be late by any
//!    time without touching freed memory.
//! 6. Slots are never freed. A thread that ends returns its slot, and the next new thread takes it over with its
//!    counters. So nothing has to be merged, and the largest number of threads that polled at once bounds the memory.
//!
//! # Memory orderings
//!
//! `begin` writes the frame between a release fence and a release store of `state`. `read` loads `state` (acquire),
//! then the frames, and after an acquire fence `state` again. If the reader saw any value of a later poll in a frame,
//! the fences order the preceding change of `state` before the second load. Then the two loads differ (invariant 2),
//! and the reader discards the reading. The loom models check these orderings.

mod allowances;
mod frame;
mod poll_record;
mod poll_stack;
mod read;
mod sentinel_parker;
mod slot_owner;
pub(crate) mod slots;
mod tag;
mod thread_diagnostics;
mod ticked_polls;

use std::marker::PhantomData;
use std::panic::Location;
use std::sync::atomic::Ordering::{Relaxed, Release};

use arrayvec::ArrayVec;

use crate::report::SectionKind;
use crate::sync::{AtomicBool, AtomicU64, ModelledGuard, ModelledLock, add_single_writer, fence};

pub(crate) use allowances::Allowances;
use frame::PollFrame;
pub(crate) use poll_record::{Diagnosis, PollRecord, ReportState, SignalDisturbance};
pub(crate) use poll_stack::{BudgetStatus, BudgetStatuses, InFlightPoll, PollStack};
pub(crate) use sentinel_parker::{SENTINEL_PARKER, SentinelParker};
pub(crate) use slot_owner::SlotOwner;
pub(crate) use slots::{ThreadKey, all, current, hold, is_current, release};
use tag::{kind_of, tag, watch_of};
pub(crate) use thread_diagnostics::ThreadDiagnostics;

/// The depth to which nested polls have frames of their own.
///
/// A deeper poll counts in its own histogram, but its time is part of the poll at this depth. 16 frames fill 1 KiB.
pub(crate) const MAX_DEPTH: usize = if cfg!(shotclock_loom) { 3 } else { 15 };

/// With the root. A power of two, so that a masked depth is always an index.
const FRAMES: usize = MAX_DEPTH + 1;
const _: () = assert!(FRAMES.is_power_of_two());

const DEPTH_BITS: u32 = 8;
const DEPTH_MASK: u64 = (1 << DEPTH_BITS) - 1;

/// The difference between two sequence numbers in `state`.
pub(crate) const SEQ_STEP: u64 = 1 << DEPTH_BITS;

/// The `watch` of the root and of a tombstone.
const NO_WATCH: u64 = u64::MAX;

/// The `seq` of a frame that ended while a later one was still in flight.
const TOMBSTONE: u64 = 0;
/// The `seq` of the root: not a tombstone, and of depth 0, which no token has.
const ROOT_SEQ: u64 = SEQ_STEP;
/// The `seq` of a poll that is nested too deep for a frame. No frame ever has it.
const TOO_DEEP_SEQ: u64 = u64::MAX;

/// The polls in flight of one thread.
///
/// With 128 bytes of alignment, two slots never share a cache line. They also never share the pair of lines that the
/// prefetcher of x86-64 processors loads.
#[repr(align(128))]
pub(crate) struct Slot {
    state: AtomicU64,
    index: usize,
    /// The number of threads that owned the slot and have ended.
    generation: AtomicU64,
    /// Whether the thread reports now, so that its own slow polls are not reported.
    is_reporting: AtomicBool,
    frames: [PollFrame; FRAMES],
    /// The state that the hot path never uses.
    diagnostics: ModelledLock<ThreadDiagnostics>,
}

/// What a poll publishes at its begin.
#[derive(Clone, Copy)]
pub(crate) struct PollStart {
    /// The id of the watch.
    pub(crate) watch: u64,
    pub(crate) kind: SectionKind,
    /// A raw reading of the watch's clock.
    pub(crate) start: u64,
    /// Whether `start` is a tick. Then the poll began after it.
    pub(crate) is_ticked: bool,
    /// Nanoseconds.
    pub(crate) budget: u64,
    pub(crate) location: &'static Location<'static>,
    /// The stack pointer, or 0 if it is unknown.
    pub(crate) stack: usize,
}

/// Identifies the frame of one poll: [`Slot::begin`] returns it, and [`Slot::end`] takes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameToken {
    seq: u64,
    /// A token is valid only on the thread that made it.
    not_send: PhantomData<*const ()>,
}

/// The times of an ended poll.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PollTimes {
    /// The elapsed nanoseconds without the watched polls inside.
    pub(crate) self_time: u64,
    /// The elapsed nanoseconds without the slow polls inside.
    pub(crate) charged: u64,
    /// Whether `charged` exceeds the budget.
    pub(crate) is_slow: bool,
    /// Whether there were slow polls inside.
    pub(crate) has_slow_inside: bool,
}

/// The sequence numbers of the polls in flight on one thread, outermost first.
pub(crate) type Seqs = ArrayVec<u64, MAX_DEPTH>;

impl Slot {
    pub(crate) fn new(index: usize) -> Self {
        let seq = |depth| if depth == 0 { ROOT_SEQ } else { TOMBSTONE };
        Self {
            state: AtomicU64::new(0),
            index,
            generation: AtomicU64::new(0),
            is_reporting: AtomicBool::new(false),
            frames: std::array::from_fn(|depth| PollFrame::new(seq(depth))),
            diagnostics: ModelledLock::new(ThreadDiagnostics::default()),
        }
    }

    /// Returns the index of this slot, for tables by thread. Indices are small and dense.
    #[inline]
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Publishes the begin of a poll. Only the owning thread may call it.
    #[inline]
    pub(crate) fn begin(&self, poll: PollStart) -> FrameToken {
        // Increases the sequence number and the depth by one each.
        let seq = self.state.load(Relaxed) + SEQ_STEP + 1;
        let depth = (seq & DEPTH_MASK) as usize;
        let Some(frame) = self.frames.get(depth) else {
            return FrameToken::new(TOO_DEEP_SEQ);
        };
        fence(Release); // model: begin-fence
        let tag = tag(poll.kind, poll.watch, poll.is_ticked);
        frame.watch.store(tag, Relaxed);
        frame.start.store(poll.start, Relaxed);
        frame.budget.store(poll.budget, Relaxed);
        frame.location.set(poll.location);
        frame.stack.store(poll.stack as u64, Relaxed);
        frame.seq.store(seq, Relaxed);
        frame.nested.store(0, Relaxed);
        frame.charged_inside.store(0, Relaxed);
        self.state.store(seq, Release); // model: begin-publish
        FrameToken::new(seq)
    }

    /// Ends a poll that took `elapsed` nanoseconds. Only the owning thread may call it.
    ///
    /// `is_scoped` says that all polls begun inside have ended, or never will on this thread, as when a poll returns.
    /// Then frames above are cut off.
    #[inline]
    pub(crate) fn end(
        &self,
        token: FrameToken,
        elapsed: u64,
        budget: u64,
        is_scoped: bool,
    ) -> PollTimes {
        let state = self.state.load(Relaxed);
        let top = self.frame(state);
        if top.seq.load(Relaxed) != token.seq {
            return self.end_out_of_order(token, elapsed, budget, is_scoped);
        }
        // Increases the sequence number by one, and decreases the depth by one.
        let mut below = state + SEQ_STEP - 1;
        if self.frame(below).seq.load(Relaxed) == TOMBSTONE {
            below = self.skip_tombstones(below);
        }
        let times = self.pass_down(token, below, elapsed, budget);
        self.state.store(below, Release); // model: end-publish
        times
    }

    /// Ends an uncounted poll: the polls inside count as if they were directly inside the outer one. Only the owning thread may call it.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn withdraw(&self, token: FrameToken) {
        let Some(below) = self.below(token) else {
            return;
        };
        let (frame, outer) = (self.frame(token.seq), self.frame(below));
        add_single_writer(&outer.nested, frame.nested.load(Relaxed));
        add_single_writer(&outer.charged_inside, frame.charged_inside.load(Relaxed));
        self.state.store(below, Release);
    }

    /// Returns the ids of the watches around a poll, outermost first. Only the owning thread may call it.
    pub(crate) fn outer_watches(&self, token: FrameToken) -> impl Iterator<Item = u64> {
        let outer = self.frames.get(1..token.depth()).unwrap_or_default();
        let tags = outer.iter().map(|frame| frame.watch.load(Relaxed));
        let is_watch = |tag: &u64| *tag != NO_WATCH && !kind_of(*tag).is_uncounted();
        tags.filter(is_watch).map(watch_of)
    }

    /// Returns the sequence numbers of the polls in flight, outermost first. Only the owning thread may call it.
    pub(crate) fn seqs(&self) -> Seqs {
        let frames = self.frames_in_flight();
        frames.map(|frame| frame.seq.load(Relaxed)).collect()
    }

    /// Returns the starts of the polls in flight, as raw readings of their watches' clocks. Only the owning thread may call it.
    pub(crate) fn starts(&self) -> ArrayVec<u64, MAX_DEPTH> {
        let frames = self.frames_in_flight();
        frames.map(|frame| frame.start.load(Relaxed)).collect()
    }

    fn frames_in_flight(&self) -> impl Iterator<Item = &PollFrame> {
        let depth = depth_of(self.state.load(Relaxed));
        let frames = self.frames.get(1..=depth).unwrap_or_default().iter();
        frames.filter(|frame| frame.seq.load(Relaxed) != TOMBSTONE)
    }

    /// Returns whether the thread reports now. Its own slow polls are not reported then.
    pub(crate) fn is_reporting(&self) -> bool {
        self.is_reporting.load(Relaxed)
    }

    /// Only the owning thread may call it.
    pub(crate) fn set_reporting(&self, is_reporting: bool) {
        self.is_reporting.store(is_reporting, Relaxed);
    }

    /// Locks the thread's diagnostics. No caller runs foreign code under this lock.
    pub(crate) fn diagnostics(&self) -> ModelledGuard<'_, ThreadDiagnostics> {
        self.diagnostics.lock()
    }

    /// Locks the thread's diagnostics, unless another thread holds them for longer than two milliseconds.
    ///
    /// The sentinel reads two small files at most under this lock. A thread that holds it longer is held up, and must
    /// not hold up a reader of statistics or health.
    #[cfg(not(shotclock_loom))]
    pub(crate) fn diagnostics_unless_held(&self) -> Option<ModelledGuard<'_, ThreadDiagnostics>> {
        /// Two milliseconds in all.
        const TRIES: u32 = 40;
        const PAUSE: std::time::Duration = std::time::Duration::from_micros(50);
        (0..TRIES).find_map(|number| {
            if number > 0 {
                std::thread::sleep(PAUSE);
            }
            self.diagnostics.try_lock()
        })
    }

    /// In a model, no thread is held up.
    #[cfg(shotclock_loom)]
    pub(crate) fn diagnostics_unless_held(&self) -> Option<ModelledGuard<'_, ThreadDiagnostics>> {
        Some(self.diagnostics())
    }

    /// Returns the frame at the depth of a `state`.
    #[inline]
    fn frame(&self, state: u64) -> &PollFrame {
        &self.frames[state as usize % FRAMES]
    }

    /// Adds the sums of a poll's frame to the frame at the depth of `below`.
    #[inline]
    fn pass_down(&self, token: FrameToken, below: u64, elapsed: u64, budget: u64) -> PollTimes {
        let (frame, outer) = (self.frame(token.seq), self.frame(below));
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
            has_slow_inside: charged_inside > 0,
        }
    }

    /// Returns `state` without the tombstones on top. The root is never a tombstone.
    #[cold]
    fn skip_tombstones(&self, mut state: u64) -> u64 {
        while self.frame(state).seq.load(Relaxed) == TOMBSTONE {
            state -= 1;
        }
        state
    }

    /// Returns the state below a poll's frame, at any depth. `None` if the poll has no frame: it is nested too deep, or
    /// an outer poll cut it off.
    fn below(&self, token: FrameToken) -> Option<u64> {
        let state = self.state.load(Relaxed);
        let seq = self.frame(token.seq).seq.load(Relaxed);
        if token.depth() > depth_of(state) || seq != token.seq {
            return None;
        }
        let seq = (state & !DEPTH_MASK) + SEQ_STEP;
        Some(self.skip_tombstones(seq | (token.depth() as u64 - 1)))
    }

    #[cold]
    fn end_out_of_order(
        &self,
        token: FrameToken,
        elapsed: u64,
        budget: u64,
        is_scoped: bool,
    ) -> PollTimes {
        let Some(below) = self.below(token) else {
            // Its time belongs to the outer poll.
            return PollTimes {
                self_time: 0,
                charged: 0,
                is_slow: false,
                has_slow_inside: false,
            };
        };
        let times = self.pass_down(token, below, elapsed, budget);
        if is_scoped {
            self.state.store(below, Release);
        } else {
            // A later poll is still in flight, so its frame stays where it is.
            let frame = self.frame(token.seq);
            frame.watch.store(NO_WATCH, Relaxed);
            frame.seq.store(TOMBSTONE, Relaxed); // model: vacate
            let state = self.state.load(Relaxed);
            self.state.store(state + SEQ_STEP, Release);
        }
        times
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

    /// Returns the poll's sequence number, unique on its thread. `None` if it was nested too deep.
    pub(crate) fn seq(self) -> Option<u64> {
        (self.seq != TOO_DEEP_SEQ).then_some(self.seq)
    }
}

/// Returns how many polls began or ended on a thread between two states of its slot.
pub(crate) fn changes_between(before: u64, now: u64) -> u64 {
    (now >> DEPTH_BITS).saturating_sub(before >> DEPTH_BITS)
}

fn depth_of(seq: u64) -> usize {
    (seq & DEPTH_MASK) as usize
}

#[cfg(all(test, not(shotclock_loom)))]
mod tests;

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
mod kind;
mod lease;
mod margin;
mod nest;
mod note;
mod owner;

use std::marker::PhantomData;
use std::panic::Location;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::sync::{AtomicBool, AtomicU64, Mutex, MutexGuard, broken, fence, unless_broken};
use crate::sys::StaticRef;
use crate::ticks::TICKS;

pub(crate) use doze::DOZE;
pub use exceptions::Allowance;
use kind::BY_TICKS;
pub use kind::Kind;
pub(crate) use lease::{Seat, all, current, is_current};
pub(crate) use margin::Margin;
pub(crate) use nest::{InFlight, Nest, Standing};
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

/// What is known of one poll in flight, in a cache line.
#[repr(align(64))]
struct Frame {
    /// The id of the watch, and the [`Kind`] in the lowest bits.
    watch: AtomicU64,
    start: AtomicU64,
    /// Nanoseconds.
    budget: AtomicU64,
    location: StaticRef<Location<'static>>,
    /// Where the stack stood when the poll began: what is beyond it is not of this poll.
    stack: AtomicU64,
    /// The `state` that was published with this frame; a [`Mark`] of another one is stale.
    opening: AtomicU64,
    /// Nanoseconds of watched polls that ended inside this one: what is not its self time.
    nested: AtomicU64,
    /// Nanoseconds of slow polls inside this one that were blamed already.
    blamed: AtomicU64,
}

impl Frame {
    fn new(opening: u64) -> Self {
        Self {
            watch: AtomicU64::new(NO_WATCH),
            start: AtomicU64::new(0),
            budget: AtomicU64::new(0),
            location: StaticRef::empty(),
            stack: AtomicU64::new(0),
            opening: AtomicU64::new(opening),
            nested: AtomicU64::new(0),
            blamed: AtomicU64::new(0),
        }
    }
}

/// Adds without a read-modify-write, which one writer may do (invariant 1).
#[inline]
fn add_single_writer(cell: &AtomicU64, value: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(value), Relaxed);
}

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
    margin: Mutex<Margin>,
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

/// Between which raw readings of the clock a poll began. No `latest`: before the next tick, which is
/// still to come.
pub(crate) struct Start {
    pub(crate) earliest: u64,
    pub(crate) latest: Option<u64>,
}

/// See [`Slot::outermost_poll`].
pub(crate) struct Outermost {
    pub(crate) opening: u64,
    /// The id of the watch.
    pub(crate) watch: u64,
    /// A raw reading of the watch's clock.
    pub(crate) start: u64,
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

impl Slot {
    fn new(index: usize) -> Self {
        let opening = |depth| if depth == 0 { GROUND } else { VACATED };
        Self {
            state: AtomicU64::new(0),
            index,
            tenancy: AtomicU64::new(0),
            mute: AtomicBool::new(false),
            frames: std::array::from_fn(|depth| Frame::new(opening(depth))),
            margin: Mutex::new(Margin::default()),
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

    /// Takes a poll back out that nobody was told of, with `elapsed` nanoseconds for what is around it.
    /// False, and nothing is done, if it was not the last that began, or if there were slow polls inside.
    /// Owner only.
    #[inline]
    pub(crate) fn end_quietly(&self, mark: Mark, elapsed: impl Fn() -> u64) -> bool {
        let state = self.state.load(Relaxed);
        if state != mark.opening && !self.is_quiet(state, mark) {
            return false;
        }
        // The serial is one more, the depth one less.
        let below = state.wrapping_add(SERIAL - 1);
        if depth_of(below) > 0 {
            add_single_writer(&self.frame(below).nested, elapsed());
        }
        self.state.store(below, Release);
        true
    }

    /// Whether a poll inside of which others ended is the last that began, and none of them was slow.
    #[inline]
    fn is_quiet(&self, state: u64, mark: Mark) -> bool {
        let (top, outer) = (
            self.frame(state),
            self.frame(state.wrapping_add(SERIAL - 1)),
        );
        top.opening.load(Relaxed) == mark.opening
            && top.blamed.load(Relaxed) == 0
            && outer.opening.load(Relaxed) != VACATED
    }

    /// Whether the innermost poll in flight, if there is one, goes by ticks. Owner only.
    #[inline]
    pub(crate) fn is_by_ticks(&self) -> bool {
        // So do the ground and a vacated frame, of which it makes no difference.
        self.frame(self.state.load(Relaxed)).watch.load(Relaxed) & BY_TICKS != 0
    }

    /// When a poll began that loaded this tick; it may have been made exact meanwhile. Owner only.
    pub(crate) fn start_of(&self, mark: Mark, tick: u64) -> Start {
        let frame = self.frame(mark.opening);
        let is_its = frame.opening.load(Relaxed) == mark.opening;
        if is_its && frame.watch.load(Relaxed) & BY_TICKS == 0 {
            let exact = frame.start.load(Relaxed);
            return Start {
                earliest: exact,
                latest: Some(exact),
            };
        }
        Start {
            earliest: tick,
            latest: TICKS.replaced(tick),
        }
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

    /// The outermost poll in flight: its opening, the id of its watch, and when it began. Guards and
    /// destructors are none: no yield ends them. Owner only.
    ///
    /// Who asks wants to know how old it is. One that goes by ticks begins now, and is exact from here on:
    /// it is asked for soon after its beginning, and a slice is shorter than a tick.
    pub(crate) fn outermost_poll(&self, now: impl Fn(u64) -> Option<u64>) -> Option<Outermost> {
        let depth = depth_of(self.state.load(Relaxed));
        let frames = self.frames.get(1..=depth).unwrap_or_default();
        let is_poll = |tag| tag != NO_WATCH && Kind::of(tag).is_poll();
        let outermost = frames
            .iter()
            .find(|frame| is_poll(frame.watch.load(Relaxed)))?;
        let tag = outermost.watch.load(Relaxed);
        let watch = Kind::watch_of(tag);
        if tag & BY_TICKS != 0 {
            let now = now(watch)?;
            if broken("exact-order") {
                outermost.watch.store(tag & !BY_TICKS, Release);
            }
            // The start first: who reads it under the old tag takes it for a tick of just now.
            outermost.start.store(now, Relaxed);
            let publish = unless_broken("exact-publish", Release);
            outermost.watch.store(tag & !BY_TICKS, publish);
        }
        Some(Outermost {
            opening: outermost.opening.load(Relaxed),
            watch,
            start: outermost.start.load(Relaxed),
        })
    }

    /// The openings of the polls in flight. Owner only.
    pub(crate) fn openings(&self) -> impl Iterator<Item = u64> {
        let depth = depth_of(self.state.load(Relaxed));
        let frames = self.frames.get(1..=depth).unwrap_or_default();
        let openings = frames.iter().map(|frame| frame.opening.load(Relaxed));
        openings.filter(|opening| *opening != VACATED)
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
    pub(crate) fn margin(&self) -> MutexGuard<'_, Margin> {
        self.margin
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Whether a poll that was read is still running. Any thread.
    ///
    /// `state` first: if it is that of a later poll at this depth, its release makes the later
    /// opening visible; and an opening never comes back.
    ///
    /// Of the stretch of a worker nothing is known here: who looks at it asks its runtime.
    pub(crate) fn is_in_flight(&self, poll: &InFlight) -> bool {
        let depth = poll.depth();
        if depth == 0 {
            return true;
        }
        (self.state.load(Acquire) & DEPTH_MASK) as usize >= depth
            && (self.frames[depth].opening.load(Relaxed) == poll.opening
                || broken("in-flight-opening"))
    }

    /// The margin, if a poll that was read is still running. As long as it is held the poll is not
    /// closed, and its thread does not end.
    pub(crate) fn hold(&self, poll: &InFlight) -> Option<MutexGuard<'_, Margin>> {
        let margin = self.margin();
        (self.is_in_flight(poll) || broken("hold-look")).then_some(margin)
    }

    /// A number that is another one after any poll of this thread began or ended.
    pub(crate) fn state(&self) -> u64 {
        self.state.load(Relaxed)
    }

    /// Whether a poll runs on this thread, by its [`state`](Self::state).
    pub(crate) fn is_busy(state: u64) -> bool {
        state & DEPTH_MASK > 0
    }

    /// The polls in flight on this slot's thread. Any thread.
    ///
    /// One that goes by ticks began when its tick was replaced, or, if that is the latest still, has only
    /// just begun.
    ///
    /// Tries again while the owner moves on; an owner that never pauses gets an empty answer after
    /// some tries, because then nothing of it is stuck.
    pub(crate) fn read(&self) -> Nest {
        const TRIES: usize = 64;
        (0..TRIES).find_map(|_| self.try_read()).unwrap_or_default()
    }

    fn try_read(&self) -> Option<Nest> {
        let state = self.state.load(unless_broken("read-state", Acquire));
        let depth = (state & DEPTH_MASK) as usize;
        let mut nest = Nest::default();
        for frame in &self.frames[1..=depth] {
            // Before the start, which is written first where a poll is made exact.
            let tag = frame.watch.load(unless_broken("read-tag", Acquire));
            if tag == NO_WATCH {
                continue;
            }
            nest.push(InFlight {
                watch: Kind::watch_of(tag),
                kind: Kind::of(tag),
                start: began(tag, frame.start.load(Relaxed)),
                budget: frame.budget.load(Relaxed),
                blamed: frame.blamed.load(Relaxed),
                location: frame.location.get(),
                stack: frame.stack.load(Relaxed) as usize,
                opening: frame.opening.load(Relaxed),
            });
        }
        fence(Acquire, "read-fence");
        let is_of_one_moment = self.state.load(Relaxed) == state || broken("read-again");
        is_of_one_moment.then_some(nest)
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

/// When a poll began, of which `start` was published under `tag`, at the latest.
fn began(tag: u64, start: u64) -> u64 {
    const JUST_NOW: u64 = u64::MAX;
    match tag & BY_TICKS {
        0 => start,
        _ => TICKS.replaced(start).unwrap_or(JUST_NOW),
    }
}

fn depth_of(opening: u64) -> usize {
    (opening & DEPTH_MASK) as usize
}

#[cfg(all(test, shotclock_loom))]
mod models;
#[cfg(all(test, not(shotclock_loom)))]
mod tests;

//! What is different of polls that go by ticks: they may end quietly, and may be made exact in their place.

use std::sync::atomic::Ordering::{Relaxed, Release};

use super::kind::BY_TICKS;
use super::{FrameToken, Kind, NO_WATCH, SEQ_STEP, Slot, TOMBSTONE, depth_of};
use crate::coarse_clock::COARSE_CLOCK;
use crate::sync::{add_single_writer, broken, unless_broken};

/// Between which raw readings of the clock a poll began. No `latest`: before the next tick, which is
/// still to come.
pub(crate) struct Start {
    pub(crate) earliest: u64,
    pub(crate) latest: Option<u64>,
}

/// See [`Slot::outermost_poll`].
pub(crate) struct Outermost {
    pub(crate) seq: u64,
    /// The id of the watch.
    pub(crate) watch: u64,
    /// A raw reading of the watch's clock.
    pub(crate) start: u64,
}

impl Slot {
    /// Takes a poll back out that nobody was told of, with `elapsed` nanoseconds for what is around it.
    /// False, and nothing is done, if it was not the last that began, or if there were slow polls inside.
    /// Owner only.
    #[inline]
    pub(crate) fn end_quietly(&self, mark: FrameToken, elapsed: impl Fn() -> u64) -> bool {
        let state = self.state.load(Relaxed);
        if state != mark.seq && !self.is_quiet(state, mark) {
            return false;
        }
        // The serial is one more, the depth one less.
        let below = state.wrapping_add(SEQ_STEP - 1);
        if depth_of(below) > 0 {
            add_single_writer(&self.frame(below).nested, elapsed());
        }
        self.state.store(below, Release);
        true
    }

    /// Whether a poll inside of which others ended is the last that began, and none of them was slow.
    #[inline]
    fn is_quiet(&self, state: u64, mark: FrameToken) -> bool {
        let (top, outer) = (
            self.frame(state),
            self.frame(state.wrapping_add(SEQ_STEP - 1)),
        );
        top.seq.load(Relaxed) == mark.seq
            && top.charged_inside.load(Relaxed) == 0
            && outer.seq.load(Relaxed) != TOMBSTONE
    }

    /// Whether the innermost poll in flight, if there is one, goes by ticks. Owner only.
    #[inline]
    pub(crate) fn is_by_ticks(&self) -> bool {
        // So do the ground and a vacated frame, of which it makes no difference.
        self.frame(self.state.load(Relaxed)).watch.load(Relaxed) & BY_TICKS != 0
    }

    /// When a poll began that loaded this tick; it may have been made exact meanwhile. Owner only.
    pub(crate) fn start_of(&self, mark: FrameToken, tick: u64) -> Start {
        let frame = self.frame(mark.seq);
        let is_its = frame.seq.load(Relaxed) == mark.seq;
        if is_its && frame.watch.load(Relaxed) & BY_TICKS == 0 {
            let exact = frame.start.load(Relaxed);
            return Start {
                earliest: exact,
                latest: Some(exact),
            };
        }
        Start {
            earliest: tick,
            latest: COARSE_CLOCK.replaced(tick),
        }
    }

    /// The outermost poll in flight: its seq, the id of its watch, and when it began. Guards and
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
            seq: outermost.seq.load(Relaxed),
            watch,
            start: outermost.start.load(Relaxed),
        })
    }
}

//! The ends of ticked polls, and the switch of a ticked poll to an exact start.

use std::sync::atomic::Ordering::{Relaxed, Release};

use super::tag::{TICKED, kind_of, watch_of};
use super::{FrameToken, NO_WATCH, SEQ_STEP, Slot, TOMBSTONE, depth_of};
use crate::coarse_clock::COARSE_CLOCK;
use crate::sync::add_single_writer;

/// The raw clock readings between which a poll began. Without `latest`, the next tick is still to come.
pub(crate) struct StartRange {
    pub(crate) earliest: u64,
    pub(crate) latest: Option<u64>,
}

/// Returns the latest time at which a poll can have begun that published `start` under `tag`.
pub(super) fn latest_start(tag: u64, start: u64) -> u64 {
    const JUST_NOW: u64 = u64::MAX;
    match tag & TICKED {
        0 => start,
        _ => COARSE_CLOCK.replaced(start).unwrap_or(JUST_NOW),
    }
}

/// The outermost poll in flight: see [`Slot::outermost_poll`].
pub(crate) struct OutermostPoll {
    pub(crate) seq: u64,
    /// The id of the watch.
    pub(crate) watch: u64,
    /// A raw reading of the watch's clock.
    pub(crate) start: u64,
}

impl Slot {
    /// Ends a fast poll, and adds `elapsed` nanoseconds to the outer poll. Only the owning thread may call it.
    ///
    /// Returns false and does nothing if the poll was not the last one that began, or had slow polls inside.
    #[inline]
    pub(crate) fn end_fast(&self, token: FrameToken, elapsed: impl Fn() -> u64) -> bool {
        let state = self.state.load(Relaxed);
        if state != token.seq && !self.is_fast(state, token) {
            return false;
        }
        // Increases the sequence number by one, and decreases the depth by one.
        let below = state.wrapping_add(SEQ_STEP - 1);
        if depth_of(below) > 0 {
            add_single_writer(&self.frame(below).nested, elapsed());
        }
        self.state.store(below, Release);
        true
    }

    /// Returns whether a poll is on top, and none of the polls that ended inside it was slow.
    #[inline]
    fn is_fast(&self, state: u64, token: FrameToken) -> bool {
        let (top, outer) = (
            self.frame(state),
            self.frame(state.wrapping_add(SEQ_STEP - 1)),
        );
        top.seq.load(Relaxed) == token.seq
            && top.charged_inside.load(Relaxed) == 0
            && outer.seq.load(Relaxed) != TOMBSTONE
    }

    /// Returns whether the innermost poll in flight is ticked. Only the owning thread may call it.
    #[inline]
    pub(crate) fn is_ticked(&self) -> bool {
        // The root and a tombstone count as ticked too, which makes no difference.
        self.frame(self.state.load(Relaxed)).watch.load(Relaxed) & TICKED != 0
    }

    /// Returns when a poll began that loaded this tick. It may have been made exact since. Only the owning thread may call it.
    pub(crate) fn start_range(&self, token: FrameToken, tick: u64) -> StartRange {
        let frame = self.frame(token.seq);
        let is_current = frame.seq.load(Relaxed) == token.seq;
        if is_current && frame.watch.load(Relaxed) & TICKED == 0 {
            let exact = frame.start.load(Relaxed);
            return StartRange {
                earliest: exact,
                latest: Some(exact),
            };
        }
        StartRange {
            earliest: tick,
            latest: COARSE_CLOCK.replaced(tick),
        }
    }

    /// Returns the outermost poll in flight. Only the owning thread may call it.
    ///
    /// Guards and destructors are no polls here, because no yield ends them. The caller needs the poll's age. So this
    /// method makes a ticked poll exact, with a start of now: the first call comes soon after the poll's begin, and a
    /// time slice is shorter than a tick.
    pub(crate) fn outermost_poll(&self, now: impl Fn(u64) -> Option<u64>) -> Option<OutermostPoll> {
        let depth = depth_of(self.state.load(Relaxed));
        let frames = self.frames.get(1..=depth).unwrap_or_default();
        let is_poll = |tag| tag != NO_WATCH && kind_of(tag).is_poll();
        let outermost = frames
            .iter()
            .find(|frame| is_poll(frame.watch.load(Relaxed)))?;
        let tag = outermost.watch.load(Relaxed);
        let watch = watch_of(tag);
        if tag & TICKED != 0 {
            let now = now(watch)?;
            // Writes `start` first: a reader with the old tag takes it for the latest tick.
            outermost.start.store(now, Relaxed);
            outermost.watch.store(tag & !TICKED, Release); // model: exact-publish
        }
        Some(OutermostPoll {
            seq: outermost.seq.load(Relaxed),
            watch,
            start: outermost.start.load(Relaxed),
        })
    }
}

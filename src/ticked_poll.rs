//! Floor 4: polls under [`Timing::Ticked`](crate::Timing::Ticked), which read no clock.
//!
//! A poll inside one tick is counted like the most recently timed poll of the same watch on the same thread, the
//! *sample*. A poll during which the ticker replaced the tick reads the clock at its end. If it surely took a tick or
//! longer, it is counted individually, and no sample stands for it.
//!
//! Three kinds of polls are timed exactly: samples, polls inside an exactly timed poll (whose self time would be a
//! guess otherwise), and all polls while the ticker sleeps.

use crate::coarse_clock::COARSE_CLOCK;
use crate::slot::{FrameToken, Slot};
use crate::watch::{Sampled, Watch, tick_nanos};

/// A poll that began without a clock reading.
pub(crate) struct TickedPoll<'w> {
    pub(crate) tick: u64,
    pub(crate) sampled: &'w Sampled,
}

impl<'w> TickedPoll<'w> {
    /// Begins a ticked poll. `None` if the poll must be timed exactly.
    #[inline]
    pub(crate) fn begin(watch: &'w Watch, slot: Option<&Slot>) -> Option<Self> {
        if !watch.is_ticked() {
            return None;
        }
        let slot = slot?;
        let sampled = sampled(watch, slot)?;
        let tick = COARSE_CLOCK.latest()?;
        (!sampled.is_due() && slot.is_ticked()).then_some(Self { tick, sampled })
    }
}

/// Returns the counters of ticked polls, if there was a sample.
#[inline]
pub(crate) fn sampled<'w>(watch: &'w Watch, slot: &Slot) -> Option<&'w Sampled> {
    watch.counters().cells(slot)?.sampled()
}

/// Ends a poll under the tick that it began with. Returns false and does nothing if the poll needs more.
#[inline]
pub(crate) fn end(slot: &Slot, token: FrameToken, tick: u64, sampled: &Sampled) -> bool {
    COARSE_CLOCK.is_latest(tick) && end_like_sample(slot, token, sampled)
}

#[inline]
fn end_like_sample(slot: &Slot, token: FrameToken, sampled: &Sampled) -> bool {
    let is_ended = slot.end_fast(token, || sampled.elapsed());
    if is_ended {
        sampled.count();
    }
    is_ended
}

/// The times of a ticked poll that is counted individually.
pub(crate) struct LatePoll {
    /// The latest possible begin, as a raw clock reading.
    pub(crate) start: u64,
    /// The nanoseconds that it surely took, and those that it may have taken beyond.
    pub(crate) elapsed: u64,
    pub(crate) slack: u64,
}

/// Ends a poll whose tick was replaced, or that needs more. `None` if it was short.
pub(crate) fn end_late(
    watch: &Watch,
    (slot, token): (&Slot, FrameToken),
    tick: u64,
    sampled: &Sampled,
    panicked: bool,
) -> Option<LatePoll> {
    let clock = watch.clock();
    let (now, start) = (clock.raw(), slot.start_range(token, tick));
    let latest = start.latest.unwrap_or(now);
    let elapsed = clock.nanos_between(latest, now);
    if !panicked && !is_long(elapsed) && end_like_sample(slot, token, sampled) {
        return None;
    }
    Some(LatePoll {
        start: latest,
        elapsed,
        slack: clock.nanos_between(start.earliest, now) - elapsed,
    })
}

/// Makes an exactly timed poll the sample for the next ones, if a sample is due.
#[cold]
#[inline(never)]
pub(crate) fn sample(watch: &Watch, slot: &Slot, start: u64, elapsed: u64, self_time: u64) {
    let clock = watch.clock();
    // A poll that would be counted individually must not be a sample.
    let began = COARSE_CLOCK.replaced(start);
    let is_individual = began.is_some_and(|began| {
        let end = clock.nanos_between(start, began);
        is_long(elapsed.saturating_sub(end))
    });
    if is_individual || sampled(watch, slot).is_some_and(|sampled| !sampled.is_due()) {
        return;
    }
    if let Some(cells) = watch.counters().cells(slot) {
        cells.sample(slot, elapsed, self_time);
    }
}

/// Returns whether a poll that surely took `elapsed` nanoseconds is counted individually.
fn is_long(elapsed: u64) -> bool {
    tick_nanos().is_none_or(|tick| elapsed >= tick)
}

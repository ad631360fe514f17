//! Floor 4: polls that read no clock.
//!
//! A poll that begins and ends under one tick is counted like the latest of its watch on its thread that
//! was timed. One that the tick was replaced under reads the clock at its end; if it surely took a tick or
//! longer, it is counted by itself. Samples are therefore taken of the others alone: what is counted by
//! itself is represented by nobody.
//!
//! Timed like any poll under [`Timing::Exact`](crate::Timing::Exact) are the samples, what is inside of a
//! timed poll (or its self time would be a guess), and everything while nobody ticks.

use crate::coarse_clock::COARSE_CLOCK;
use crate::slot::{FrameToken, Slot};
use crate::watch::{Sampled, Watch, tick_of};

/// A poll that begins without a reading of the clock.
pub(crate) struct FastPoll<'w> {
    pub(crate) tick: u64,
    pub(crate) sampled: &'w Sampled,
}

impl<'w> FastPoll<'w> {
    /// `None` if the next poll of the watch on this thread is to be timed.
    #[inline]
    pub(crate) fn begin(watch: &'w Watch, slot: Option<&Slot>) -> Option<Self> {
        if !watch.is_by_ticks() {
            return None;
        }
        let slot = slot?;
        let sampled = sampled(watch, slot)?;
        let tick = COARSE_CLOCK.latest()?;
        (!sampled.is_due() && slot.is_by_ticks()).then_some(Self { tick, sampled })
    }
}

/// Where polls are counted that are not timed, if there was a sample.
#[inline]
pub(crate) fn sampled<'w>(watch: &'w Watch, slot: &Slot) -> Option<&'w Sampled> {
    watch.counters().cells(slot)?.sampled()
}

/// The end of a poll under the tick with which it began. False, and nothing is done, if there is more to
/// say about it.
#[inline]
pub(crate) fn end(slot: &Slot, mark: FrameToken, tick: u64, sampled: &Sampled) -> bool {
    COARSE_CLOCK.is_latest(tick) && end_as_sampled(slot, mark, sampled)
}

#[inline]
fn end_as_sampled(slot: &Slot, mark: FrameToken, sampled: &Sampled) -> bool {
    let is_quiet = slot.end_quietly(mark, || sampled.elapsed());
    if is_quiet {
        sampled.count();
    }
    is_quiet
}

/// What is known of a poll at its end that began under a tick.
pub(crate) struct LatePoll {
    /// The latest moment at which it can have begun: a raw reading of the clock.
    pub(crate) start: u64,
    /// Nanoseconds that it surely took, and how many more it may have taken.
    pub(crate) elapsed: u64,
    pub(crate) slack: u64,
}

/// The end of a poll that the tick was replaced under, or of which there is more to say. `None` if it was
/// short, and that is all.
pub(crate) fn end_late(
    watch: &Watch,
    (slot, mark): (&Slot, FrameToken),
    tick: u64,
    sampled: &Sampled,
    panicked: bool,
) -> Option<LatePoll> {
    let clock = watch.clock();
    let (now, start) = (clock.raw(), slot.start_of(mark, tick));
    let latest = start.latest.unwrap_or(now);
    let elapsed = clock.nanos_between(latest, now);
    if !panicked && !is_long(elapsed) && end_as_sampled(slot, mark, sampled) {
        return None;
    }
    Some(LatePoll {
        start: latest,
        elapsed,
        slack: clock.nanos_between(start.earliest, now) - elapsed,
    })
}

/// A poll was timed, and stands for those to come if that was what it was timed for.
#[cold]
#[inline(never)]
pub(crate) fn sample(watch: &Watch, slot: &Slot, start: u64, elapsed: u64, self_time: u64) {
    let clock = watch.clock();
    // What would be known of it, had it not been timed.
    let began = COARSE_CLOCK.replaced(start);
    let is_counted_alone = began.is_some_and(|began| {
        let end = clock.nanos_between(start, began);
        is_long(elapsed.saturating_sub(end))
    });
    if is_counted_alone || sampled(watch, slot).is_some_and(|sampled| !sampled.is_due()) {
        return;
    }
    if let Some(cells) = watch.counters().cells(slot) {
        cells.sample(slot, elapsed, self_time);
    }
}

/// Whether a poll that surely took so many nanoseconds is counted by itself.
fn is_long(elapsed: u64) -> bool {
    tick_of().is_none_or(|tick| elapsed >= tick)
}

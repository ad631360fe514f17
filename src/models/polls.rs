//! A slot's owner against a thread that reads its polls.

use std::panic::Location;
use std::sync::Arc;

use loom::thread;

use super::Model;
use crate::coarse_clock::COARSE_CLOCK;
use crate::report::SectionKind;
use crate::slot::{FrameToken, PollStack, PollStart, SEQ_STEP, Slot};
use crate::sync::fault::Fault::{Forged, Relaxed, Skipped, Stale};

pub(super) const BUDGET: u64 = 10;

fn poll_start(watch: u64, start: u64, is_ticked: bool) -> PollStart {
    PollStart {
        is_ticked,
        watch,
        kind: SectionKind::Poll,
        start,
        budget: BUDGET,
        location: Location::caller(),
        stack: 0,
    }
}

pub(super) fn begin(slot: &Slot, watch: u64) -> FrameToken {
    slot.begin(poll_start(watch, watch + 7, false))
}

/// Asserts what holds for polls from [`begin`], if an inner poll has the watch after that of its outer poll.
pub(super) fn assert_is_of_one_moment(stack: &PollStack) {
    let polls: Vec<_> = stack.iter().map(|poll| (poll.watch, poll.start)).collect();
    let is_whole = polls.iter().all(|(watch, start)| *start == watch + 7);
    assert!(is_whole, "half a poll: {polls:?}");
    if let [(outer, _), (inner, _)] = polls[..] {
        assert_eq!(inner, outer + 1, "of two moments");
    }
}

/// The frames of a reading belong together, whatever the owner begins and ends at that time.
#[test]
fn reading_while_polls_begin_and_end_is_of_one_moment() {
    let model = Model::new(|| {
        let slot = Arc::new(Slot::new(0));
        let reader = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || slot.try_read().iter().for_each(assert_is_of_one_moment))
        };
        let first = begin(&slot, 2);
        slot.end(first, 1, BUDGET, true);
        let outer = begin(&slot, 4);
        let inner = begin(&slot, 5);
        slot.end(inner, 1, BUDGET, true);
        slot.end(outer, 2, BUDGET, true);
        reader.join().unwrap();
    });
    model
        .holds()
        .fails_with(Skipped, "begin-fence", "half a poll")
        .fails_with(Relaxed, "begin-publish", "half a poll")
        .fails_with(Relaxed, "read-state", "half a poll")
        .fails_with(Skipped, "read-fence", "half a poll")
        .fails_with(Stale, "read-again", "half a poll");
}

/// A guard that is dropped out of order vacates its frame. A reader sees the poll or no poll, and never a poll of depth
/// 0: that would pass for the record of a worker.
#[test]
fn frame_that_is_vacated_while_it_is_read_gives_no_poll_of_depth_0() {
    let model = Model::new(|| {
        let slot = Arc::new(Slot::new(0));
        let outer = begin(&slot, 1);
        let _inner = begin(&slot, 2);
        let reader = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || {
                for poll in slot.try_read().iter().flat_map(PollStack::iter) {
                    assert_ne!(poll.depth(), 0, "no poll");
                }
            })
        };
        slot.end(outer, 1, BUDGET, false);
        reader.join().unwrap();
    });
    // A number that the reader does not know for a tombstone.
    model
        .holds()
        .fails_with(Forged(SEQ_STEP), "vacate", "no poll");
}

/// A reader that sees the end of a slow inner poll also sees that the inner poll was charged.
#[test]
fn end_of_a_slow_inner_poll_when_it_is_seen_shows_what_was_charged() {
    let model = Model::new(|| {
        let slot = Arc::new(Slot::new(0));
        let reader = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || {
                // Two polls have begun, and one has ended.
                let has_ended = slot.state() == 3 * SEQ_STEP + 1;
                let stack = slot.try_read();
                let outer = stack.iter().flat_map(PollStack::iter).next();
                if let (true, Some(outer)) = (has_ended, outer) {
                    assert_eq!(outer.charged_inside, 50, "charged inside");
                }
            })
        };
        let _outer = begin(&slot, 1);
        let inner = begin(&slot, 2);
        assert!(slot.end(inner, 50, BUDGET, true).is_slow);
        reader.join().unwrap();
    });
    model
        .holds()
        .fails_with(Relaxed, "end-publish", "charged inside")
        .fails_with(Relaxed, "read-state", "charged inside");
}

/// A ticked poll never seems to begin at its tick. A reader sees the exact beginning, or when the next tick replaced the
/// tick, or that the poll has only just begun.
#[test]
fn ticked_poll_that_is_made_exact_is_never_read_as_begun_at_its_tick() {
    const TICK: u64 = 100;
    const NEXT_TICK: u64 = 200;
    const EXACT: u64 = 205;
    let model = Model::new(|| {
        let slot = Arc::new(Slot::new(0));
        COARSE_CLOCK.publish(|| TICK);
        let reader = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || {
                for poll in slot.try_read().iter().flat_map(PollStack::iter) {
                    let start = poll.start;
                    let is_possible = [NEXT_TICK, EXACT, u64::MAX].contains(&start);
                    assert!(is_possible, "it began at {start}");
                }
            })
        };
        let token = slot.begin(poll_start(1, TICK, true));
        COARSE_CLOCK.publish(|| NEXT_TICK);
        let outermost = slot.outermost_poll(|_| Some(EXACT));
        assert_eq!(outermost.map(|poll| poll.start), Some(EXACT));
        let start = slot.start_range(token, TICK);
        assert_eq!((start.earliest, start.latest), (EXACT, Some(EXACT)));
        reader.join().unwrap();
    });
    model
        .holds()
        .fails_with(Relaxed, "exact-publish", "it began at 100")
        .fails_with(Relaxed, "read-tag", "it began at 100");
}

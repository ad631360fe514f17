//! Polls that go by ticks. What is told to nobody is done quietly; and one may be made exact in its place.

use super::*;

/// Later than any tick that somebody publishes, so that nothing has replaced it.
const TICK: u64 = u64::MAX - 1;

fn begin_by_ticks(slot: &Slot, watch: u64) -> FrameToken {
    slot.begin(PollStart {
        is_ticked: true,
        watch,
        kind: SectionKind::Poll,
        start: TICK,
        budget: BUDGET,
        location: Location::caller(),
        stack: 0,
    })
}

fn nobody_asks() -> u64 {
    panic!("nothing is around it whose time it could be")
}

#[test]
fn what_a_quiet_poll_took_is_not_the_outer_polls_own() {
    let slot = Slot::new(0);
    let outer = begin(&slot, 1, 0);
    let inner = begin_by_ticks(&slot, 2);
    assert!(slot.is_ticked());
    assert!(slot.end_fast(inner, || 3));
    assert!(!slot.is_ticked());
    assert_eq!(watches(&slot), [1]);
    let times = end(&slot, outer, 8);
    assert_eq!((times.self_time, times.charged), (5, 8));
}

#[test]
fn the_outermost_hands_its_time_to_nobody() {
    let slot = Slot::new(0);
    let (mut seqs, mut states) = (Vec::new(), Vec::new());
    for watch in 0..3 {
        let poll = begin_by_ticks(&slot, watch);
        assert!(Slot::is_busy(slot.state()));
        seqs.push(poll.seq());
        assert!(slot.end_fast(poll, nobody_asks));
        assert!(!Slot::is_busy(slot.state()));
        states.push(slot.state());
    }
    assert!(seqs.is_sorted() && states.is_sorted());
    seqs.dedup();
    states.dedup();
    assert_eq!((seqs.len(), states.len()), (3, 3));
}

#[test]
fn one_with_quiet_polls_inside_ends_quietly() {
    let slot = Slot::new(0);
    let around = begin(&slot, 1, 0);
    let outer = begin_by_ticks(&slot, 2);
    for _ in 0..2 {
        let inner = begin_by_ticks(&slot, 3);
        assert!(slot.end_fast(inner, || 2));
    }
    assert!(slot.end_fast(outer, || 7));
    assert_eq!(end(&slot, around, 10).self_time, 3);
    // Alone as well.
    let outer = begin_by_ticks(&slot, 2);
    let inner = begin_by_ticks(&slot, 3);
    assert!(slot.end_fast(inner, || 2));
    assert!(slot.end_fast(outer, nobody_asks));
    assert!(slot.read().is_empty());
}

#[test]
fn there_is_more_to_say_of_one_with_a_slow_poll_inside() {
    let slot = Slot::new(0);
    let around = begin(&slot, 1, 0);
    let outer = begin_by_ticks(&slot, 2);
    let inner = begin(&slot, 3, 0);
    assert!(end(&slot, inner, 50).is_slow);
    assert!(!slot.end_fast(outer, nobody_asks));
    assert_eq!(watches(&slot), [1, 2]);
    assert!(!end(&slot, outer, 55).is_slow);
    assert_eq!(end(&slot, around, 60).charged, 10);
}

#[test]
fn one_that_was_not_the_last_to_begin_is_not_ended_quietly() {
    let slot = Slot::new(0);
    let outer = begin_by_ticks(&slot, 1);
    let _inner = begin_by_ticks(&slot, 2);
    assert!(!slot.end_fast(outer, nobody_asks));
    assert_eq!(watches(&slot), [1, 2]);
}

#[test]
fn nor_one_above_a_frame_that_was_vacated() {
    let slot = Slot::new(0);
    let around = begin(&slot, 1, 0);
    let vacated = begin(&slot, 2, 0);
    let poll = begin_by_ticks(&slot, 3);
    let inner = begin_by_ticks(&slot, 4);
    slot.end(vacated, 1, BUDGET, false);
    assert!(slot.end_fast(inner, || 1));
    assert!(!slot.end_fast(poll, nobody_asks));
    assert_eq!(watches(&slot), [1, 3]);
    assert_eq!(end(&slot, poll, 4).self_time, 3);
    assert_eq!(end(&slot, around, 9).self_time, 4);
}

#[test]
fn one_that_goes_by_ticks_began_after_its_tick() {
    let slot = Slot::new(0);
    let poll = begin_by_ticks(&slot, 1);
    let start = slot.start_range(poll, TICK);
    assert_eq!((start.earliest, start.latest), (TICK, None));
    // Who looks at it meanwhile takes it for one that has just begun.
    let began: Vec<_> = slot.read().iter().map(|poll| poll.start).collect();
    assert_eq!(began, [u64::MAX]);
}

#[test]
fn one_that_is_made_exact_began_when_it_was() {
    let slot = Slot::new(0);
    let drop_glue = slot.begin(PollStart {
        is_ticked: false,
        watch: 1,
        kind: SectionKind::Drop,
        start: 1,
        budget: BUDGET,
        location: Location::caller(),
        stack: 0,
    });
    let poll = begin_by_ticks(&slot, 2);
    let inner = begin_by_ticks(&slot, 3);
    assert!(slot.outermost_poll(|_| None).is_none());
    let outermost = slot.outermost_poll(|watch| Some(100 + watch)).unwrap();
    assert_eq!((outermost.watch, outermost.start), (2, 102));
    assert_eq!(Some(outermost.seq), poll.seq());
    // Once: the next who asks is told the same.
    let again = slot.outermost_poll(|_| None).unwrap();
    assert_eq!((again.watch, again.start), (2, 102));
    let start = slot.start_range(poll, TICK);
    assert_eq!((start.earliest, start.latest), (102, Some(102)));
    let started: Vec<_> = slot.read().iter().map(|poll| poll.start).collect();
    assert_eq!(started, [1, 102, u64::MAX]);
    // The one inside goes by ticks all the same.
    assert!(slot.is_ticked());
    assert_eq!(slot.start_range(inner, TICK).latest, None);
    assert_eq!(slot.outer_watches(inner).collect::<Vec<_>>(), [1, 2]);
    end(&slot, drop_glue, 5);
}

#[test]
fn of_one_that_was_cut_off_the_tick_is_what_is_known() {
    let slot = Slot::new(0);
    let outer = begin(&slot, 1, 0);
    let cut_off = begin_by_ticks(&slot, 2);
    end(&slot, outer, 5);
    begin(&slot, 3, 0);
    begin(&slot, 4, 77);
    let start = slot.start_range(cut_off, TICK);
    assert_eq!((start.earliest, start.latest), (TICK, None));
}

//! Ticked polls: their fast end, and the switch of one to an exact start.

use super::*;

/// Later than any published tick, so no tick has replaced it.
const TICK: u64 = u64::MAX - 1;

fn begin_ticked(slot: &Slot, watch: u64) -> FrameToken {
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

fn no_outer_poll() -> u64 {
    panic!("there is no outer poll that needs the time")
}

#[test]
fn end_fast_lowers_the_outer_self_time() {
    let slot = Slot::new(0);
    let outer = begin(&slot, 1, 0);
    let inner = begin_ticked(&slot, 2);
    assert!(slot.is_ticked());
    assert!(slot.end_fast(inner, || 3));
    assert!(!slot.is_ticked());
    assert_eq!(watches(&slot), [1]);
    let times = end(&slot, outer, 8);
    assert_eq!((times.self_time, times.charged), (5, 8));
}

#[test]
fn end_fast_of_the_outermost_poll_needs_no_time() {
    let slot = Slot::new(0);
    let (mut seqs, mut states) = (Vec::new(), Vec::new());
    for watch in 0..3 {
        let poll = begin_ticked(&slot, watch);
        assert!(Slot::is_busy(slot.state()));
        seqs.push(poll.seq());
        assert!(slot.end_fast(poll, no_outer_poll));
        assert!(!Slot::is_busy(slot.state()));
        states.push(slot.state());
    }
    assert!(seqs.is_sorted() && states.is_sorted());
    seqs.dedup();
    states.dedup();
    assert_eq!((seqs.len(), states.len()), (3, 3));
}

#[test]
fn end_fast_with_fast_polls_inside_succeeds() {
    let slot = Slot::new(0);
    let around = begin(&slot, 1, 0);
    let outer = begin_ticked(&slot, 2);
    for _ in 0..2 {
        let inner = begin_ticked(&slot, 3);
        assert!(slot.end_fast(inner, || 2));
    }
    assert!(slot.end_fast(outer, || 7));
    assert_eq!(end(&slot, around, 10).self_time, 3);
    // The same without an outer poll.
    let outer = begin_ticked(&slot, 2);
    let inner = begin_ticked(&slot, 3);
    assert!(slot.end_fast(inner, || 2));
    assert!(slot.end_fast(outer, no_outer_poll));
    assert!(slot.read().is_empty());
}

#[test]
fn end_fast_with_a_slow_poll_inside_is_refused() {
    let slot = Slot::new(0);
    let around = begin(&slot, 1, 0);
    let outer = begin_ticked(&slot, 2);
    let inner = begin(&slot, 3, 0);
    assert!(end(&slot, inner, 50).is_slow);
    assert!(!slot.end_fast(outer, no_outer_poll));
    assert_eq!(watches(&slot), [1, 2]);
    assert!(!end(&slot, outer, 55).is_slow);
    assert_eq!(end(&slot, around, 60).charged, 10);
}

#[test]
fn end_fast_below_another_poll_is_refused() {
    let slot = Slot::new(0);
    let outer = begin_ticked(&slot, 1);
    let _inner = begin_ticked(&slot, 2);
    assert!(!slot.end_fast(outer, no_outer_poll));
    assert_eq!(watches(&slot), [1, 2]);
}

#[test]
fn end_fast_above_a_tombstone_is_refused() {
    let slot = Slot::new(0);
    let around = begin(&slot, 1, 0);
    let vacated = begin(&slot, 2, 0);
    let poll = begin_ticked(&slot, 3);
    let inner = begin_ticked(&slot, 4);
    slot.end(vacated, 1, BUDGET, false);
    assert!(slot.end_fast(inner, || 1));
    assert!(!slot.end_fast(poll, no_outer_poll));
    assert_eq!(watches(&slot), [1, 3]);
    assert_eq!(end(&slot, poll, 4).self_time, 3);
    assert_eq!(end(&slot, around, 9).self_time, 4);
}

#[test]
fn start_range_of_a_ticked_poll_begins_at_its_tick() {
    let slot = Slot::new(0);
    let poll = begin_ticked(&slot, 1);
    let start = slot.start_range(poll, TICK);
    assert_eq!((start.earliest, start.latest), (TICK, None));
    // To a reader, the poll has just begun.
    let began: Vec<_> = slot.read().iter().map(|poll| poll.start).collect();
    assert_eq!(began, [u64::MAX]);
}

#[test]
fn outermost_poll_of_a_ticked_poll_makes_it_exact() {
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
    let poll = begin_ticked(&slot, 2);
    let inner = begin_ticked(&slot, 3);
    assert!(slot.outermost_poll(|_| None).is_none());
    let outermost = slot.outermost_poll(|watch| Some(100 + watch)).unwrap();
    assert_eq!((outermost.watch, outermost.start), (2, 102));
    assert_eq!(Some(outermost.seq), poll.seq());
    // A second call returns the same.
    let again = slot.outermost_poll(|_| None).unwrap();
    assert_eq!((again.watch, again.start), (2, 102));
    let start = slot.start_range(poll, TICK);
    assert_eq!((start.earliest, start.latest), (102, Some(102)));
    let started: Vec<_> = slot.read().iter().map(|poll| poll.start).collect();
    assert_eq!(started, [1, 102, u64::MAX]);
    // The inner poll is still ticked.
    assert!(slot.is_ticked());
    assert_eq!(slot.start_range(inner, TICK).latest, None);
    assert_eq!(slot.outer_watches(inner).collect::<Vec<_>>(), [1, 2]);
    end(&slot, drop_glue, 5);
}

#[test]
fn start_range_of_a_cut_off_poll_begins_at_its_tick() {
    let slot = Slot::new(0);
    let outer = begin(&slot, 1, 0);
    let cut_off = begin_ticked(&slot, 2);
    end(&slot, outer, 5);
    begin(&slot, 3, 0);
    begin(&slot, 4, 77);
    let start = slot.start_range(cut_off, TICK);
    assert_eq!((start.earliest, start.latest), (TICK, None));
}

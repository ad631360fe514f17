use super::*;
use crate::sync::AtomicBool;

mod ticked_polls;

const BUDGET: u64 = 10;

fn end(slot: &Slot, token: FrameToken, elapsed: u64) -> PollTimes {
    slot.end(token, elapsed, BUDGET, true)
}

fn begin(slot: &Slot, watch: u64, start: u64) -> FrameToken {
    begin_kind(slot, SectionKind::Poll, watch, start)
}

fn begin_kind(slot: &Slot, kind: SectionKind, watch: u64, start: u64) -> FrameToken {
    slot.begin(PollStart {
        is_ticked: false,
        watch,
        kind,
        start,
        budget: BUDGET,
        location: Location::caller(),
        stack: 0,
    })
}

fn watches(slot: &Slot) -> Vec<u64> {
    slot.read().iter().map(|poll| poll.watch).collect()
}

#[test]
fn end_of_an_inner_poll_lowers_the_outer_self_time() {
    let slot = Slot::new(0);
    let outer = begin(&slot, 1, 100);
    let inner = begin(&slot, 2, 101);
    let read: Vec<_> = slot.read().iter().map(|p| (p.watch, p.start)).collect();
    assert_eq!(read, [(1, 100), (2, 101)]);
    assert_eq!(slot.outer_watches(inner).collect::<Vec<_>>(), [1]);
    let times = end(&slot, inner, 3);
    assert_eq!(
        (times.self_time, times.charged, times.is_slow),
        (3, 3, false)
    );
    let times = end(&slot, outer, 8);
    assert_eq!(
        (times.self_time, times.charged, times.is_slow),
        (5, 8, false)
    );
    assert!(slot.read().is_empty());
}

#[test]
fn slow_inner_poll_excuses_the_outer_poll() {
    let slot = Slot::new(0);
    let outer = begin(&slot, 1, 0);
    let inner = begin(&slot, 2, 0);
    assert!(end(&slot, inner, 50).is_slow);
    let times = end(&slot, outer, 55);
    assert_eq!(
        (times.self_time, times.charged, times.is_slow),
        (5, 5, false)
    );
}

#[test]
fn outer_poll_slow_by_itself_is_slow_too() {
    let slot = Slot::new(0);
    let outer = begin(&slot, 1, 0);
    let inner = begin(&slot, 2, 0);
    assert!(end(&slot, inner, 50).is_slow);
    let times = end(&slot, outer, 61);
    assert_eq!((times.charged, times.is_slow), (11, true));
}

#[test]
fn fast_polls_inside_are_charged_to_the_outer_poll() {
    let slot = Slot::new(0);
    let outer = begin(&slot, 1, 0);
    for _ in 0..20 {
        let inner = begin(&slot, 2, 0);
        assert!(!end(&slot, inner, 1).is_slow);
    }
    let times = end(&slot, outer, 20);
    assert_eq!(
        (times.self_time, times.charged, times.is_slow),
        (0, 20, true)
    );
}

#[test]
fn charged_time_passes_through_a_fast_poll() {
    let slot = Slot::new(0);
    let outer = begin(&slot, 1, 0);
    let middle = begin(&slot, 2, 0);
    let inner = begin(&slot, 3, 0);
    assert_eq!(slot.outer_watches(inner).collect::<Vec<_>>(), [1, 2]);
    assert!(end(&slot, inner, 50).is_slow);
    assert!(!end(&slot, middle, 55).is_slow);
    let times = end(&slot, outer, 59);
    assert_eq!((times.charged, times.is_slow), (9, false));
}

#[test]
fn end_of_a_poll_cuts_off_the_frames_above() {
    let slot = Slot::new(0);
    let poll = begin(&slot, 1, 0);
    let left_open = begin(&slot, 2, 0);
    end(&slot, poll, 5);
    assert!(slot.read().is_empty());
    // Dropped later, inside another poll: it takes nothing from it.
    let next = begin(&slot, 3, 0);
    let times = slot.end(left_open, 1_000, BUDGET, false);
    assert_eq!(
        (times.self_time, times.charged, times.is_slow),
        (0, 0, false)
    );
    assert_eq!(watches(&slot), [3]);
    assert_eq!(end(&slot, next, 4).self_time, 4);
}

#[test]
fn guards_dropped_in_creation_order_leave_no_frame() {
    let slot = Slot::new(0);
    let first = begin(&slot, 1, 0);
    let second = begin(&slot, 2, 0);
    slot.end(first, 5, BUDGET, false);
    assert_eq!(watches(&slot), [2]);
    slot.end(second, 5, BUDGET, false);
    assert!(slot.read().is_empty());
    let again = begin(&slot, 3, 0);
    assert_eq!(again.depth(), 1);
    assert_eq!(end(&slot, again, 7).self_time, 7);
}

#[test]
fn end_above_a_tombstone_passes_its_time_below() {
    let slot = Slot::new(0);
    let outer = begin(&slot, 1, 0);
    let first = begin(&slot, 2, 0);
    let second = begin(&slot, 3, 0);
    slot.end(first, 1, BUDGET, false);
    assert!(slot.end(second, 50, BUDGET, false).is_slow);
    // The outer poll is not charged with the slow poll above the tombstone.
    let times = end(&slot, outer, 55);
    assert_eq!(
        (times.self_time, times.charged, times.is_slow),
        (4, 5, false)
    );
}

#[test]
fn withdraw_passes_inner_times_to_the_outer_poll() {
    let slot = Slot::new(0);
    let outer = begin(&slot, 1, 0);
    let audited = begin(&slot, 2, 0);
    let inner = begin(&slot, 3, 0);
    assert!(end(&slot, inner, 50).is_slow);
    // Cut off: it was begun inside, and never ended.
    begin(&slot, 4, 0);
    slot.withdraw(audited);
    assert_eq!(watches(&slot), [1]);
    slot.withdraw(audited);
    assert_eq!(watches(&slot), [1]);
    let audited = begin(&slot, 2, 0);
    slot.withdraw(audited);
    assert_eq!(watches(&slot), [1]);
    let times = end(&slot, outer, 55);
    assert_eq!(
        (times.self_time, times.charged, times.is_slow),
        (5, 5, false)
    );
    slot.withdraw(FrameToken::new(TOO_DEEP_SEQ));
    assert!(slot.read().is_empty());
}

#[test]
fn polls_beyond_the_depth_limit_count_as_the_deepest() {
    let slot = Slot::new(0);
    let marks: Vec<FrameToken> = (0..20).map(|watch| begin(&slot, watch, 0)).collect();
    assert_eq!(watches(&slot).len(), MAX_DEPTH);
    let mut self_times = 0;
    for token in marks.into_iter().rev() {
        self_times += end(&slot, token, 5).self_time;
    }
    assert_eq!(self_times, 5);
    assert!(slot.read().is_empty());
}

#[test]
fn read_during_polls_is_consistent() {
    let slot = Slot::new(0);
    let done = AtomicBool::new(false);
    let mut seen = 0u64;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Miri explores slowly, and what it looks for it finds soon.
            let polls = if cfg!(miri) { 200 } else { 200_000 };
            for n in 0..polls {
                let outer = begin(&slot, 2 * n, 2 * n + 7);
                let inner = begin(&slot, 2 * n + 1, 2 * n + 8);
                end(&slot, inner, 1);
                end(&slot, outer, 2);
            }
            done.store(true, Relaxed);
        });
        while !done.load(Relaxed) {
            let Some(polls) = slot.try_read() else {
                continue;
            };
            seen += 1;
            let polls: Vec<_> = polls.iter().collect();
            for poll in &polls {
                assert_eq!(poll.start, poll.watch + 7, "{polls:?}");
            }
            if let [outer, inner] = polls[..] {
                assert_eq!(inner.watch, outer.watch + 1);
            }
        }
    });
    assert!(seen > 0);
}

#[test]
fn slot_has_the_documented_size() {
    assert_eq!((size_of::<Slot>(), align_of::<Slot>()), (1_280, 128));
}

#[test]
fn slot_of_an_ended_thread_is_reused() {
    let index_of = || {
        std::thread::spawn(|| current().map(Slot::index))
            .join()
            .unwrap()
    };
    let before = all().len();
    for _ in 0..200 {
        assert!(index_of().is_some());
    }
    // Other tests of this process may have taken some slots, but never 200.
    assert!(all().len() < before + 100);
}

#[test]
fn thread_key_of_an_ended_thread_has_no_slot() {
    let here = ThreadKey::of_current_thread().unwrap();
    assert!(is_current(here.slot().unwrap()));
    assert_eq!(ThreadKey::from_number(here.number()), Some(here));
    assert_eq!(ThreadKey::from_number(0), None);
    let ended = std::thread::spawn(|| ThreadKey::of_current_thread().unwrap());
    let ended = ended.join().unwrap();
    assert!(ended.slot().is_none());
    // Another thread may own its slot now.
    let _another = std::thread::spawn(|| ThreadKey::of_current_thread().unwrap())
        .join()
        .unwrap();
    assert!(ended.slot().is_none());
}

#[test]
fn thread_keys_of_running_threads_are_distinct() {
    let all_sit = std::sync::Barrier::new(8);
    let sit = || {
        let seat = ThreadKey::of_current_thread().unwrap();
        all_sit.wait();
        assert!(is_current(seat.slot().unwrap()));
        assert_eq!(seat.slot().unwrap().index(), seat.index());
        all_sit.wait();
        seat
    };
    let mut seats: Vec<ThreadKey> = Vec::new();
    for _ in 0..3 {
        let now = std::thread::scope(|threads| {
            let threads: Vec<_> = (0..8).map(|_| threads.spawn(sit)).collect();
            let seats = threads.into_iter().map(|thread| thread.join().unwrap());
            seats.collect::<Vec<_>>()
        });
        assert!(now.iter().all(|seat| !seats.contains(seat)));
        seats.extend(now);
        assert!(seats.iter().all(|seat| seat.slot().is_none()));
    }
}

#[test]
fn all_after_a_fork_keeps_the_list_of_slots() {
    let is_released = AtomicBool::new(false);
    hold();
    std::thread::scope(|threads| {
        let other = threads.spawn(|| {
            all();
            is_released.load(Relaxed)
        });
        // Time for it to be too early.
        std::thread::sleep(std::time::Duration::from_millis(10));
        is_released.store(true, Relaxed);
        release();
        assert!(other.join().unwrap());
    });
}

#[test]
fn is_in_flight_is_true_until_the_poll_ends() {
    let slot = Slot::new(7);
    assert_eq!(slot.index(), 7);
    let outer = begin(&slot, 1, 0);
    let inner = begin(&slot, 2, 0);
    let polls: Vec<_> = slot.read().iter().copied().collect();
    assert!(!slot.read().is_empty());
    let in_flight = || polls.iter().map(|poll| slot.is_in_flight(poll));
    assert_eq!(in_flight().collect::<Vec<_>>(), [true, true]);
    let seqs = [&outer, &inner].map(|token| token.seq().unwrap());
    assert_eq!(slot.seqs().to_vec(), seqs);
    end(&slot, inner, 1);
    assert_eq!(in_flight().collect::<Vec<_>>(), [true, false]);
    // Another one at its depth is another one.
    let next = begin(&slot, 2, 0);
    assert_eq!(in_flight().collect::<Vec<_>>(), [true, false]);
    end(&slot, next, 1);
    end(&slot, outer, 1);
    assert_eq!(in_flight().collect::<Vec<_>>(), [false, false]);
    assert_eq!(slot.seqs().len(), 0);
}

#[test]
fn read_skips_a_tombstone() {
    let slot = Slot::new(0);
    let first = begin(&slot, 1, 0);
    let second = begin(&slot, 2, 0);
    let before = slot.state();
    slot.end(first, 5, BUDGET, false);
    assert_ne!(
        slot.state(),
        before,
        "a reader must see that it is another nest"
    );
    assert_eq!(slot.seqs().to_vec(), [second.seq().unwrap()]);
    assert_eq!(slot.outer_watches(second).count(), 0);
    assert_eq!(
        slot.outermost_poll(|_| None).map(|poll| poll.watch),
        Some(2)
    );
}

#[test]
fn state_never_repeats() {
    let slot = Slot::new(0);
    let last = std::cell::Cell::new(slot.state() >> DEPTH_BITS);
    // Each change adds one, so the numbers last.
    let assert_new = |what: &str| {
        last.set(last.get() + 1);
        assert_eq!(slot.state() >> DEPTH_BITS, last.get(), "{what}");
    };
    let begin = |watch| {
        let token = begin(&slot, watch, 0);
        assert_new("begun");
        token
    };
    let [outer, first, second, third] = [1, 2, 3, 4].map(begin);
    slot.end(first, 1, BUDGET, false);
    assert_new("vacated");
    slot.end(third, 1, BUDGET, true);
    assert_new("ended");
    begin(5);
    slot.end(second, 1, BUDGET, true);
    assert_new("ended, and what is inside cut off");
    let withdrawn = begin(6);
    slot.withdraw(withdrawn);
    assert_new("withdrawn");
    slot.end(outer, 1, BUDGET, true);
    assert_new("ended");
    assert!(slot.read().is_empty());
}

#[test]
fn outer_watches_leaves_out_audits() {
    let slot = Slot::new(0);
    begin(&slot, 1, 0);
    begin_kind(&slot, SectionKind::Audited, 2, 0);
    begin_kind(&slot, SectionKind::Entered, 3, 0);
    let poll = begin(&slot, 4, 0);
    assert_eq!(slot.outer_watches(poll).collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn end_at_the_budget_is_not_slow() {
    let slot = Slot::new(0);
    let poll = begin(&slot, 1, 0);
    assert!(!end(&slot, poll, BUDGET).is_slow);
    let poll = begin(&slot, 1, 0);
    let times = end(&slot, poll, BUDGET + 1);
    assert_eq!((times.is_slow, times.has_slow_inside), (true, false));
}

#[test]
fn thread_that_reports_is_marked() {
    let slot = Slot::new(0);
    assert!(!slot.is_reporting());
    slot.set_reporting(true);
    assert!(slot.is_reporting());
}

//! Models of what runs between a slot's owner and those who read it: every interleaving, up to a number of
//! preemptions. `RUSTFLAGS="--cfg shotclock_loom" cargo test --release --lib models`
//!
//! Left out are the thread-locals (a model's threads take their slots and give them back by hand) and the
//! location, which is one pointer to what lives for ever.

use std::sync::Arc;
use std::sync::atomic::AtomicBool as Unseen;

use loom::thread;

use super::sentinel_parker::SentinelParker;
use super::slots::{return_slot, take};
use super::*;
use crate::coarse_clock::COARSE_CLOCK;
use crate::sync::model::Model;

const BUDGET: u64 = 10;
const DEADLOCK: &str = "deadlock";

fn opened(watch: u64, start: u64, is_ticked: bool) -> PollStart {
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

fn begin(slot: &Slot, watch: u64) -> FrameToken {
    slot.begin(opened(watch, watch + 7, false))
}

/// What is true of the polls that [`begin`] begins, with one number more for an inner one.
fn assert_is_of_one_moment(nest: &PollStack) {
    let polls: Vec<_> = nest.iter().map(|poll| (poll.watch, poll.start)).collect();
    let is_whole = polls.iter().all(|(watch, start)| *start == watch + 7);
    assert!(is_whole, "half a poll: {polls:?}");
    if let [(outer, _), (inner, _)] = polls[..] {
        assert_eq!(inner, outer + 1, "of two moments");
    }
}

/// A reading is of one moment: its frames belong together, whatever is published, nested and taken
/// back meanwhile.
#[test]
fn read_during_polls_is_consistent() {
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
        .fails_without("begin-fence", "half a poll")
        .fails_without("begin-publish", "half a poll")
        .fails_without("read-state", "half a poll")
        .fails_without("read-fence", "half a poll")
        .fails_without("read-again", "half a poll");
}

/// A guard that is dropped out of order leaves a poll or none to the reader, and never one without its
/// number: that would be taken for the stretch of a worker, of which a stall is noted elsewhere.
#[test]
fn what_is_vacated_is_no_poll() {
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
    model.holds().fails_without("read-vacated", "no poll");
}

/// A reader that sees the end of a slow poll also sees its time in `charged_inside`: the outer poll is not charged again.
#[test]
fn what_was_blamed_inside_is_seen_with_its_end() {
    let model = Model::new(|| {
        let slot = Arc::new(Slot::new(0));
        let reader = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || {
                // Two have begun, and one has ended.
                let has_ended = slot.state() == 3 * SEQ_STEP + 1;
                let nest = slot.try_read();
                if let (true, Some(outer)) =
                    (has_ended, nest.iter().flat_map(PollStack::iter).next())
                {
                    assert_eq!(outer.charged_inside, 50, "charged_inside");
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
        .fails_without("end-publish", "charged_inside")
        .fails_without("read-state", "charged_inside");
}

/// A poll that goes by ticks is never taken to have begun at its tick: a reader sees when it was made exact,
/// or when its tick was replaced, or that it has only just begun.
#[test]
fn a_poll_is_made_exact_in_one_step() {
    const TICK: u64 = 100;
    const EXACT: u64 = 205;
    let model = Model::new(|| {
        let slot = Arc::new(Slot::new(0));
        COARSE_CLOCK.publish(|| TICK);
        let reader = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || {
                for poll in slot.try_read().iter().flat_map(PollStack::iter) {
                    let began = poll.start;
                    assert!(
                        [200, EXACT, u64::MAX].contains(&began),
                        "it began at {began}"
                    );
                }
            })
        };
        let token = slot.begin(opened(1, TICK, true));
        COARSE_CLOCK.publish(|| 200);
        let outermost = slot.outermost_poll(|_| Some(EXACT));
        assert_eq!(outermost.map(|poll| poll.start), Some(EXACT));
        let start = slot.start_range(token, TICK);
        assert_eq!((start.earliest, start.latest), (EXACT, Some(EXACT)));
        reader.join().unwrap();
    });
    model
        .holds()
        .fails_without("exact-order", "it began at 100")
        .fails_without("exact-publish", "it began at 100")
        .fails_without("read-tag", "it began at 100");
}

/// A poll that begins while the sentinel lies down is seen by its last look, or rouses it: it does not sleep
/// for ever while a poll runs, and one wake-up is enough for it.
#[test]
fn no_poll_begins_unseen() {
    let model = Model::new(|| {
        let all = Arc::new(([Slot::new(0), Slot::new(1)], SentinelParker::new()));
        let polls = [0, 1].map(|index| {
            let all = Arc::clone(&all);
            thread::spawn(move || {
                let (slots, parker) = &*all;
                begin(&slots[index], 1);
                parker.notify();
            })
        });
        let (slots, parker) = &*all;
        parker.register();
        assert!(parker.prepare_park());
        match slots.iter().any(|slot| Slot::is_busy(slot.state())) {
            true => parker.cancel_park(),
            false => parker.park(),
        }
        polls.into_iter().for_each(|poll| poll.join().unwrap());
    });
    model
        .holds()
        .fails_without("rouse-fence", DEADLOCK)
        .fails_without("lie-down-fence", DEADLOCK)
        .fails_without("wake-order", DEADLOCK);
}

/// What the sentinel told of a poll, the end of that poll knows; and after the end nothing is told.
#[test]
fn a_stall_that_was_told_is_told_to_have_ended() {
    let model = Model::new(|| {
        let slot = Arc::new(Slot::new(0));
        let token = begin(&slot, 1);
        let sentinel = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || {
                let nest = slot.read();
                let poll = *nest.iter().next()?;
                let mut diagnostics = slot.lock_running(&poll)?;
                diagnostics.record(&poll).report_state = ReportState::Running { id: poll.watch };
                Some(poll.watch)
            })
        };
        let mut knew = Vec::new();
        for (token, watch) in [(Some(token), 1), (None, 2)] {
            let token = token.unwrap_or_else(|| begin(&slot, watch));
            assert!(slot.end(token, 11, BUDGET, true).is_slow);
            let (record, _) = slot.diagnostics().close(token, None);
            if record.was_reported() {
                assert_eq!(record.report_state, ReportState::Running { id: watch });
                knew.push(watch);
            }
        }
        let told = sentinel.join().unwrap();
        assert_eq!(
            told.into_iter().collect::<Vec<_>>(),
            knew,
            "told, and known"
        );
    });
    model
        .holds()
        .fails_without("hold-look", "told, and known")
        .fails_without("in-flight-seq", "told, and known");
}

/// A thread ends while somebody holds its slot, and the next one takes it over: what is read is of one of
/// the two alone, the next one's polls are its own, and what the two count adds up.
#[test]
fn a_slot_that_goes_to_the_next_thread_is_of_one_moment_too() {
    let model = Model::new(|| {
        let slot = take();
        let [counted, taken] = [0, 0].map(|zero| Arc::new(AtomicU64::new(zero)));
        let next = {
            let (counted, taken) = (Arc::clone(&counted), Arc::clone(&taken));
            thread::spawn(move || {
                let mine = take();
                if !std::ptr::eq(mine, slot) {
                    return return_slot(mine);
                }
                taken.store(1, Relaxed);
                let outer = begin(mine, 4);
                let _left_open = begin(mine, 5);
                assert_eq!(mine.seqs().len(), 2, "somebody writes to it");
                add_single_writer(&counted, 1);
                mine.end(outer, 1, BUDGET, true);
                return_slot(mine);
            })
        };
        let reader = thread::spawn(|| slot.try_read().iter().for_each(assert_is_of_one_moment));
        let _left_open = begin(slot, 2);
        add_single_writer(&counted, 1);
        return_slot(slot);
        reader.join().unwrap();
        next.join().unwrap();
        assert_eq!(counted.load(Relaxed), 1 + taken.load(Relaxed), "counted");
    });
    model
        .holds()
        .fails_without("return-order", "somebody writes to it")
        .fails_without("return-serial", "half a poll");
}

/// As long as somebody holds on to a poll, its thread does not end; so it may be signalled, and what is
/// noted is noted of it and not of the next one.
#[test]
fn a_thread_that_is_held_on_to_does_not_end() {
    let model = Model::new(|| {
        let slot = take();
        let has_ended = Arc::new(Unseen::new(false));
        let asker = {
            let has_ended = Arc::clone(&has_ended);
            thread::spawn(move || {
                let nest = slot.read();
                let Some(poll) = nest.iter().find(|poll| poll.watch == 1) else {
                    return;
                };
                if let Some(mut diagnostics) = slot.lock_running(poll) {
                    diagnostics.record(poll).late_stacks += 1;
                    thread::yield_now();
                    assert!(!has_ended.load(Relaxed), "it has ended");
                }
            })
        };
        let _left_open = begin(slot, 1);
        return_slot(slot);
        has_ended.store(true, Relaxed);
        // The next one, on the same slot.
        let slot = take();
        begin(slot, 2);
        asker.join().unwrap();
    });
    model
        .holds()
        .fails_without("return-diagnostics", "it has ended")
        .fails_without("hold-look", "it has ended")
        .fails_without("in-flight-seq", "it has ended");
}

/// A seat leads to its thread's slot as long as the thread lives, and never to the next one's.
#[test]
fn a_seat_is_of_one_thread() {
    let model = Model::new(|| {
        let slot = take();
        let seat = ThreadKey::of(slot);
        assert!(seat.slot().is_some());
        let thread = thread::spawn(|| return_slot(slot));
        let next = thread::spawn(move || {
            let mine = take();
            let is_the_same = std::ptr::eq(mine, slot);
            assert!(!is_the_same || seat.slot().is_none(), "of another thread");
            assert!(ThreadKey::of(mine).slot().is_some());
        });
        thread.join().unwrap();
        next.join().unwrap();
        assert!(seat.slot().is_none(), "of a thread that has ended");
    });
    model.holds().fails_without("return-generation", "of ");
}

//! A slot's thread against those that hold the slot, and the thread that takes it over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use loom::thread;

use super::Model;
use super::polls::{BUDGET, assert_is_of_one_moment, begin};
use crate::slot::slots::{clear, make_available, return_slot, take};
use crate::slot::{ReportState, Slot, ThreadKey};
use crate::sync::fault::Fault::{Forged, Skipped, Stale};
use crate::sync::{AtomicU64, add_single_writer};

/// The end of a poll knows what the sentinel reported of it, and the sentinel reports nothing after the end.
#[test]
fn stall_that_was_reported_is_known_at_the_end_of_its_poll() {
    let model = Model::new(|| {
        let slot = Arc::new(Slot::new(0));
        let token = begin(&slot, 1);
        let sentinel = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || {
                let stack = slot.read();
                let poll = *stack.iter().next()?;
                let mut diagnostics = slot.lock_running(&poll)?;
                diagnostics.record(&poll).report_state = ReportState::Running { id: poll.watch };
                Some(poll.watch)
            })
        };
        let mut known = Vec::new();
        for (token, watch) in [(Some(token), 1), (None, 2)] {
            let token = token.unwrap_or_else(|| begin(&slot, watch));
            assert!(slot.end(token, 11, BUDGET, true).is_slow);
            let (record, _) = slot.diagnostics().close(token, None);
            if record.was_reported() {
                assert_eq!(record.report_state, ReportState::Running { id: watch });
                known.push(watch);
            }
        }
        let reported = sentinel.join().unwrap();
        let reported: Vec<_> = reported.into_iter().collect();
        assert_eq!(reported, known, "reported, and known");
    });
    model
        .holds()
        .fails_with(Stale, "in-flight-state", "reported, and known")
        .fails_with(Stale, "in-flight-seq", "reported, and known");
}

fn hand_over_while_it_is_read(return_slot: fn(&'static Slot)) -> Model {
    Model::new(move || {
        let slot = take();
        let [counted, taken] = [0, 0].map(|zero| Arc::new(AtomicU64::new(zero)));
        let next = {
            let (counted, taken) = (Arc::clone(&counted), Arc::clone(&taken));
            thread::spawn(move || {
                let its_own = take();
                if !std::ptr::eq(its_own, slot) {
                    return return_slot(its_own);
                }
                taken.store(1, Ordering::Relaxed);
                let outer = begin(its_own, 4);
                let _left_open = begin(its_own, 5);
                assert_eq!(its_own.seqs().len(), 2, "another thread writes to it");
                add_single_writer(&counted, 1);
                its_own.end(outer, 1, BUDGET, true);
                return_slot(its_own);
            })
        };
        let reader = thread::spawn(|| slot.try_read().iter().for_each(assert_is_of_one_moment));
        let _left_open = begin(slot, 2);
        add_single_writer(&counted, 1);
        return_slot(slot);
        reader.join().unwrap();
        next.join().unwrap();
        let polls = 1 + taken.load(Ordering::Relaxed);
        assert_eq!(counted.load(Ordering::Relaxed), polls, "counted");
    })
}

/// A thread ends while another one reads its slot, and a third takes the slot over. A reading is of one of the two
/// owners, the second one sees its own polls only, and their counts add up.
#[test]
fn slot_that_goes_to_the_next_thread_is_of_one_owner() {
    hand_over_while_it_is_read(return_slot)
        .holds()
        .fails_with(Skipped, "return-state", "another thread writes to it")
        .fails_with(Forged(0), "return-state", "half a poll");
}

#[test]
fn slot_that_is_made_available_too_early_has_two_writers() {
    let return_slot_too_early = |slot: &'static Slot| {
        make_available(slot);
        clear(slot);
    };
    hand_over_while_it_is_read(return_slot_too_early).fails("another thread writes to it");
}

/// A poll that is held keeps its thread from ending. So the holder may signal the thread, and what it notes does not go
/// to the next one.
#[test]
fn thread_whose_poll_is_held_does_not_end() {
    let model = Model::new(|| {
        let slot = take();
        let has_ended = Arc::new(AtomicBool::new(false));
        let holder = {
            let has_ended = Arc::clone(&has_ended);
            thread::spawn(move || {
                let stack = slot.read();
                let Some(poll) = stack.iter().find(|poll| poll.watch == 1) else {
                    return;
                };
                if let Some(mut diagnostics) = slot.lock_running(poll) {
                    diagnostics.record(poll).late_stacks += 1;
                    thread::yield_now();
                    assert!(!has_ended.load(Ordering::Relaxed), "it has ended");
                }
            })
        };
        let _left_open = begin(slot, 1);
        return_slot(slot);
        has_ended.store(true, Ordering::Relaxed);
        // The next thread, on the same slot.
        let slot = take();
        begin(slot, 2);
        holder.join().unwrap();
    });
    model
        .holds()
        .fails_with(Skipped, "return-diagnostics", "it has ended")
        .fails_with(Stale, "in-flight-state", "it has ended")
        .fails_with(Stale, "in-flight-seq", "it has ended");
}

/// A key leads to the slot of its thread while that thread lives, and never to the slot of the next one.
#[test]
fn thread_key_after_the_end_of_its_thread_leads_to_no_slot() {
    let model = Model::new(|| {
        let slot = take();
        let key = ThreadKey::of(slot);
        assert!(key.slot().is_some());
        let thread = thread::spawn(|| return_slot(slot));
        let next = thread::spawn(move || {
            let its_own = take();
            let is_the_same = std::ptr::eq(its_own, slot);
            assert!(!is_the_same || key.slot().is_none(), "of another thread");
            assert!(ThreadKey::of(its_own).slot().is_some());
        });
        thread.join().unwrap();
        next.join().unwrap();
        assert!(key.slot().is_none(), "of a thread that has ended");
    });
    model
        .holds()
        .fails_with(Skipped, "return-generation", "of ");
}

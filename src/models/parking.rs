//! The sentinel that goes to sleep against polls that begin.

use std::sync::Arc;

use loom::thread;

use super::polls::begin;
use super::{DEADLOCK, Model};
use crate::slot::{SentinelParker, Slot};
use crate::sync::fault::Fault::Skipped;
use crate::sys::light_fence;

fn park_while_two_polls_begin(notify: fn(&SentinelParker)) -> Model {
    Model::new(move || {
        let shared = Arc::new(([Slot::new(0), Slot::new(1)], SentinelParker::new()));
        let polls = [0, 1].map(|index| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let (slots, parker) = &*shared;
                begin(&slots[index], 1);
                notify(parker);
            })
        });
        let (slots, parker) = &*shared;
        parker.register();
        assert!(parker.prepare_park());
        match slots.iter().any(|slot| Slot::is_busy(slot.state())) {
            true => parker.cancel_park(),
            false => parker.park(),
        }
        polls.into_iter().for_each(|poll| poll.join().unwrap());
    })
}

/// The sentinel's last look sees the poll, or the poll wakes the sentinel. One wake-up is enough.
#[test]
fn sentinel_that_parks_while_polls_begin_does_not_sleep_for_ever() {
    park_while_two_polls_begin(SentinelParker::notify)
        .holds()
        .fails_with(Skipped, "light-fence", DEADLOCK)
        .fails_with(Skipped, "heavy-fence", DEADLOCK);
}

#[test]
fn sentinel_that_is_woken_before_its_flag_is_cleared_sleeps_for_ever() {
    let notify_in_the_wrong_order = |parker: &SentinelParker| {
        light_fence();
        if parker.is_parked() {
            parker.unpark();
            parker.cancel_park();
        }
    };
    park_while_two_polls_begin(notify_in_the_wrong_order).fails(DEADLOCK);
}

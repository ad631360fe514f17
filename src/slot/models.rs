//! Models of what runs between a slot's owner and the sentinel: every interleaving, up to a number of
//! preemptions. `RUSTFLAGS="--cfg shotclock_loom" cargo test --release --lib models`

use loom::sync::Arc;
use loom::thread;

use super::doze::Doze;
use super::*;

const BUDGET: u64 = 10;

fn model(f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(f);
}

fn begin(slot: &Slot, watch: u64) -> Mark {
    slot.begin(Opened {
        by_ticks: false,
        watch,
        kind: Kind::Poll,
        start: watch + 7,
        budget: BUDGET,
        location: Location::caller(),
        stack: 0,
    })
}

/// A reading is of one moment: its frames belong together, whatever is published, nested and taken
/// back meanwhile.
#[test]
fn a_reader_never_sees_half_a_poll() {
    model(|| {
        let slot = Arc::new(Slot::new(0));
        let reader = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || {
                let Some(nest) = slot.try_read() else { return };
                let polls: Vec<_> = nest.iter().collect();
                assert!(polls.iter().all(|poll| poll.start == poll.watch + 7));
                if let [outer, inner] = polls[..] {
                    assert_eq!(inner.watch, outer.watch + 1);
                }
            })
        };
        let first = begin(&slot, 2);
        slot.end(first, 1, BUDGET, true);
        let outer = begin(&slot, 4);
        let inner = begin(&slot, 5);
        slot.end(inner, 1, BUDGET, true);
        slot.end(outer, 2, BUDGET, true);
        reader.join().unwrap();
    });
}

/// A poll that begins while the sentinel lies down is seen by its last look, or rouses it.
#[test]
fn no_poll_begins_unseen() {
    model(|| {
        let both = Arc::new((Slot::new(0), Doze::new()));
        let sentinel = {
            let both = Arc::clone(&both);
            thread::spawn(move || {
                let (slot, doze) = &*both;
                assert!(doze.lie_down());
                Slot::is_busy(slot.state())
            })
        };
        let (slot, doze) = &*both;
        let _open = begin(slot, 1);
        doze.rouse();
        let is_seen = sentinel.join().unwrap();
        assert!(is_seen || !doze.is_asleep(), "it sleeps, and a poll runs");
    });
}

/// What the sentinel told of a poll, the end of that poll knows; and after the end nothing is told.
#[test]
fn a_stall_that_was_told_is_told_to_have_ended() {
    model(|| {
        let slot = Arc::new(Slot::new(0));
        let mark = begin(&slot, 1);
        let sentinel = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || {
                let nest = slot.read();
                let poll = *nest.iter().next()?;
                let mut margin = slot.margin();
                if !slot.is_in_flight(&poll) {
                    return None;
                }
                let told = &mut margin.note(&poll).told;
                if *told == Told::Ended {
                    return None;
                }
                *told = Told::Running { id: 1 };
                Some(())
            })
        };
        assert!(slot.end(mark, 11, BUDGET, true).slow);
        let (note, _) = slot.margin().close(mark, None);
        // The next poll at this depth has a note of its own.
        let next = begin(&slot, 2);
        slot.end(next, 11, BUDGET, true);
        let (next, _) = slot.margin().close(next, None);
        let was_told = sentinel.join().unwrap().is_some();
        assert!(note.was_told() || next.was_told() || !was_told);
        assert!(was_told || !note.was_told());
    });
}

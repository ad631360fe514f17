//! The thread that requests a stack against the threads that answer, in time or late.

use std::sync::Arc;

use loom::cell::Cell;
use loom::thread;

use super::Model;
use crate::sync::fault::Fault::{Forged, Relaxed, Split};
use crate::sys::request_cell::{IDLE, RequestCell};

/// What loom says where two threads access a cell at once.
const RACE: &str = "Causality violation";
const FOREIGN: &str = "the answer of another thread";

/// The places of a request and of its answer, which loom watches.
struct Exchange {
    cell: RequestCell,
    request: Cell<u32>,
    answer: Cell<(u32, u32)>,
}

impl Exchange {
    /// Answers with the thread and the request, unless it is too late.
    fn on_signal(&self, thread: u32, name: u32) {
        if self.cell.accept(name) {
            self.answer.set((thread, self.request.get()));
            self.cell.deliver(name);
        }
    }
}

/// Requests one thread and then another one. The requester does not wait long, so either thread may be late.
fn request_two_threads(name_of: fn(u32) -> u32) -> Model {
    Model::new(move || {
        let shared = Arc::new(Exchange {
            cell: RequestCell::new(),
            request: Cell::new(0),
            answer: Cell::new((0, 0)),
        });
        let mut threads = Vec::new();
        for thread in [1, 2] {
            let name = name_of(thread);
            // It runs already: only the request synchronizes with it.
            let requested = Arc::clone(&shared);
            threads.push(thread::spawn(move || requested.on_signal(thread, name)));
            if !shared.cell.request(name, || shared.request.set(thread)) {
                continue;
            }
            match shared.cell.is_answered() {
                true => assert_eq!(shared.answer.get(), (thread, thread), "{FOREIGN}"),
                false => shared.cell.withdraw(name),
            }
        }
        threads.into_iter().for_each(|t| t.join().unwrap());
    })
}

/// An answer is whole, and that of the thread that was requested, to its request.
#[test]
fn answer_of_a_thread_that_may_be_late_is_its_own_and_whole() {
    request_two_threads(|thread| thread)
        .holds()
        .fails_with(Forged(IDLE), "request-look", RACE)
        .fails_with(Relaxed, "request-look", RACE)
        .fails_with(Relaxed, "request-publish", RACE)
        .fails_with(Relaxed, "accept", RACE)
        .fails_with(Split, "accept", RACE)
        .fails_with(Relaxed, "deliver", RACE)
        .fails_with(Relaxed, "answered", RACE)
        .fails_with(Split, "withdraw", RACE);
}

#[test]
fn answer_to_a_request_that_names_no_thread_is_of_another_thread() {
    request_two_threads(|_| 0).fails(FOREIGN);
}

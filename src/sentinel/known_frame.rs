//! Functions of others that mean something where they are found in a stack, known by name.

use super::restarting_callers::{Call, call_of_c, call_of_rust};

/// What a function belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KnownFrame {
    /// A function that makes such a call again if a signal cuts it short.
    Repeats(Call),
    /// The scheduler of a tokio runtime of the current thread: whose stack it is in is in `block_on`.
    Scheduler,
    /// The same: its `block_on`, which polls the future that it was given, as a scheduler polls tasks.
    BlockOn,
    /// A `LocalSet`, which polls tasks as a scheduler does.
    LocalSet,
    /// Tokio's `block_in_place`: whose stack it is in has handed its worker to another thread.
    BlockInPlace,
    /// A worker of a multi-thread runtime …
    Worker,
    /// … and the poll of a task.
    Task,
    /// A thread of a runtime's pool, be it a worker or not.
    Pool,
}

impl KnownFrame {
    /// A cheap look at a mangled name, because there are many.
    pub(super) fn may_be_in(mangled: &str) -> bool {
        const WORDS: [&str; 9] = [
            "3std",
            "parking_lot",
            "current_thread",
            "block_in_place",
            "12multi_thread6worker",
            "4task3raw4poll",
            "4task7harness",
            "8blocking4pool",
            "4task5local",
        ];
        WORDS.iter().any(|word| mangled.contains(word))
    }

    /// Of a function that the C library exports.
    pub(super) fn of_c(symbol: &str) -> Option<Self> {
        call_of_c(symbol).map(KnownFrame::Repeats)
    }

    /// By the name without its mangling.
    pub(super) fn of(name: &str) -> Option<Self> {
        let path = name.trim_start_matches('<');
        if let Some(call) = call_of_rust(name) {
            Some(KnownFrame::Repeats(call))
        } else if !path.starts_with("tokio::") {
            None
        } else if path.contains("block_in_place") {
            Some(KnownFrame::BlockInPlace)
        } else if path.starts_with("tokio::runtime::scheduler::current_thread::") {
            match path.contains("block_on") {
                true => Some(KnownFrame::BlockOn),
                false => Some(KnownFrame::Scheduler),
            }
        } else if path.starts_with("tokio::task::local::LocalSet") {
            Some(KnownFrame::LocalSet)
        } else if path.starts_with("tokio::runtime::scheduler::multi_thread::worker::") {
            Some(KnownFrame::Worker)
        } else if path.starts_with("tokio::runtime::blocking::pool::") {
            Some(KnownFrame::Pool)
        } else if is_poll_of_a_task(path) {
            Some(KnownFrame::Task)
        } else {
            None
        }
    }
}

/// What a worker calls is the first of the two. In a release build that is nothing but a jump to the second,
/// so that only this one is in the stack.
fn is_poll_of_a_task(path: &str) -> bool {
    let in_harness = path.strip_prefix("tokio::runtime::task::harness::");
    path.starts_with("tokio::runtime::task::raw::poll")
        || in_harness.is_some_and(|function| function.contains("::poll"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_known_by_name() {
        for (name, expected) in [
            ("std::thread::sleep", Some(KnownFrame::Repeats(Call::Sleep))),
            ("std::thread::yield_now", None),
            ("parking_lot_core::parking_lot::park", None),
            ("app::sleep", None),
            ("<app::Sleep as std::future::Future>::poll", None),
            (
                "tokio::runtime::scheduler::current_thread::CoreGuard::block_on",
                Some(KnownFrame::BlockOn),
            ),
            (
                "<tokio::runtime::scheduler::current_thread::CurrentThread>::block_on::<app::F>",
                Some(KnownFrame::BlockOn),
            ),
            (
                "tokio::runtime::scheduler::current_thread::Context::run_task",
                Some(KnownFrame::Scheduler),
            ),
            (
                "tokio::task::local::LocalSet::tick",
                Some(KnownFrame::LocalSet),
            ),
            (
                "<tokio::task::local::LocalSet>::tick",
                Some(KnownFrame::LocalSet),
            ),
            (
                "tokio::runtime::scheduler::multi_thread::worker::block_in_place",
                Some(KnownFrame::BlockInPlace),
            ),
            ("app::current_thread::run", None),
            (
                "tokio::runtime::blocking::pool::Inner::run",
                Some(KnownFrame::Pool),
            ),
            (
                "<tokio::runtime::blocking::pool::Inner>::run",
                Some(KnownFrame::Pool),
            ),
            (
                "<tokio::runtime::scheduler::multi_thread::worker::Context>::run_task",
                Some(KnownFrame::Worker),
            ),
            (
                "tokio::runtime::task::raw::poll::<app::F, tokio::S>",
                Some(KnownFrame::Task),
            ),
            (
                "tokio::runtime::task::harness::Harness<T,S>::poll",
                Some(KnownFrame::Task),
            ),
            (
                "<tokio::runtime::task::harness::Harness<app::F, tokio::S>>::poll",
                Some(KnownFrame::Task),
            ),
            ("tokio::runtime::task::raw::drop_join_handle_slow", None),
            (
                "tokio::runtime::task::harness::Harness<T,S>::drop_join_handle_slow",
                None,
            ),
        ] {
            assert_eq!(KnownFrame::of(name), expected, "{name}");
        }
    }
}

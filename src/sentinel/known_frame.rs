//! Recognizes functions of tokio, std and the C library in a stack, by name.

use super::restarting_callers::{Call, call_of_c, call_of_rust};

/// A function that says something about the thread whose stack has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KnownFrame {
    /// A function that repeats such a call if a signal cuts it short.
    Repeats(Call),
    /// The scheduler of a current-thread runtime. The thread is in `block_on`.
    Scheduler,
    /// `block_on` of such a runtime, which polls its future as a scheduler polls tasks.
    BlockOn,
    /// A `LocalSet`, which polls tasks as a scheduler does.
    LocalSet,
    /// Tokio's `block_in_place`. The thread has handed its worker to another thread.
    BlockInPlace,
    /// A worker of a multi-thread runtime.
    Worker,
    /// The poll of a task.
    Task,
    /// A thread of a runtime's blocking pool. Workers are such threads too.
    Pool,
}

impl KnownFrame {
    /// Returns whether a mangled name may be a known function. This is cheap, because a program has many names.
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

    /// Recognizes a function that the C library exports.
    pub(super) fn of_c(symbol: &str) -> Option<Self> {
        call_of_c(symbol).map(KnownFrame::Repeats)
    }

    /// Recognizes a function by its demangled name.
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

/// Returns whether a function polls a task.
///
/// A worker calls the one in `raw`. In a release build this is only a jump to the one in `harness`, so the stack has only
/// the latter.
fn is_poll_of_a_task(path: &str) -> bool {
    let in_harness = path.strip_prefix("tokio::runtime::task::harness::");
    path.starts_with("tokio::runtime::task::raw::poll")
        || in_harness.is_some_and(|function| function.contains("::poll"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_name_returns_its_function() {
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

//! Says what to do about a slow poll.
//!
//! The advice follows from what the poll waited for: the kind of the system call, the file behind its descriptor, and
//! the function of the standard library that waits. So it holds for any way to block.

use super::cause::{Cause, Resource, Syscall};
use super::section_kind::SectionKind;
use crate::stack::Stack;

/// Puts the cause before the advice, unless the advice says it already.
pub(super) fn with_cause(cause: &Cause, advice: &str) -> String {
    match cause {
        Cause::Computing | Cause::Blocked(_) => format!("{cause}: {advice}"),
        Cause::Starved | Cause::Suspended | Cause::Unknown => advice.into(),
    }
}

pub(super) fn advice(cause: &Cause, kind: SectionKind, stack: Option<&Stack>) -> &'static str {
    match (cause, kind) {
        (Cause::Starved, _) => {
            "the operating system did not schedule the thread: see whether the host is too busy or the \
             container's CPU limit too low"
        }
        (Cause::Suspended, _) => {
            "the process was stopped or its machine paused: the code needs no change"
        }
        (Cause::Blocked(call), _) => blocked(call, stack),
        (Cause::Computing, SectionKind::Drop) => {
            "the destructor of the future computes: drop large values on other threads (shotclock::offload)"
        }
        (Cause::Computing, _) => {
            "yield in long loops (shotclock::yield_after or yield_every), or move the work to other threads \
             (shotclock::offload)"
        }
        (Cause::Unknown, kind) => unknown(kind),
    }
}

fn unknown(kind: SectionKind) -> &'static str {
    match kind {
        SectionKind::Poll | SectionKind::Contained | SectionKind::Audited => {
            "await instead of blocking (tokio::time, tokio::net, tokio::sync, tokio::fs), \
             yield in long loops (shotclock::yield_after or yield_every), \
             or move the work to other threads (shotclock::offload)"
        }
        SectionKind::Drop => {
            "the destructor of the future took the time: \
             drop large values, or values that block when dropped, on other threads (shotclock::offload)"
        }
        SectionKind::Entered => {
            "split the section, or move it to other threads (shotclock::offload)"
        }
    }
}

fn blocked(call: &Syscall, stack: Option<&Stack>) -> &'static str {
    match call.resource {
        Resource::Clock => "use tokio::time::sleep",
        Resource::Futex => waiting_for_a_thread(stack),
        Resource::Socket => "use tokio::net",
        Resource::Pipe => {
            "use tokio::net::unix::pipe, for the output of a child tokio::process, \
             or shotclock::offload"
        }
        Resource::File => "use tokio::fs or shotclock::offload",
        Resource::Device => "use tokio::io::stdin, or a thread of its own",
        Resource::Process => "use tokio::process",
        Resource::Events => {
            "another event loop or runtime runs inside this poll: await instead of block_on, or give \
             it a thread of its own"
        }
        Resource::Unknown => {
            "await instead (tokio::time, tokio::net, tokio::sync, tokio::fs, tokio::process), or move \
             the call to other threads (shotclock::offload)"
        }
    }
}

/// The functions of the standard library that wait for another thread, each with the advice for it.
///
/// Particular ones come first: a barrier waits by a condition variable, and a channel by parking.
const WAITING_FUNCTIONS: [(&str, &str); 9] = [
    (
        "mpsc",
        "use tokio::sync::mpsc or tokio::sync::oneshot and await it",
    ),
    (
        "mpmc",
        "use tokio::sync::mpsc or tokio::sync::oneshot and await it",
    ),
    ("block_on", "await instead of block_on inside a runtime"),
    ("barrier", "use tokio::sync::Barrier"),
    (
        "rwlock",
        "use tokio::sync::RwLock, or hold the lock for shorter",
    ),
    ("condvar", "use tokio::sync::Notify or tokio::sync::watch"),
    (
        "mutex",
        "use tokio::sync::Mutex, or hold the lock for shorter",
    ),
    ("once", "use tokio::sync::OnceCell"),
    (
        "join",
        "await the work instead: tokio::task::spawn_blocking or shotclock::offload",
    ),
];

fn waiting_for_a_thread(stack: Option<&Stack>) -> &'static str {
    let frames = stack.map(Stack::waiting_frames).unwrap_or_default();
    let functions: Vec<_> = frames
        .iter()
        .filter_map(|frame| frame.function.as_deref())
        .map(str::to_lowercase)
        .collect();
    let is_called = |word: &str| functions.iter().any(|function| function.contains(word));
    let found = WAITING_FUNCTIONS.iter().find(|(word, _)| is_called(word));
    found.map_or(
        "it waits for another thread (a lock, a channel, the end of a thread): use tokio::sync and await it \
         (tokio::sync::Mutex, mpsc, Notify)",
        |(_, advice)| advice,
    )
}

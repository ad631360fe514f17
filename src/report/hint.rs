//! What to do about a slow poll.
//!
//! It is told from what the poll waited for (the kind of the system call, what its file descriptor
//! refers to, which function of the standard library waits), so that it holds for any way to block.

use crate::cause::{Cause, Syscall, Target};
use crate::slot::Kind;
use crate::stack::Stack;

pub(super) fn hint(cause: &Cause, kind: Kind, stack: Option<&Stack>) -> String {
    match (cause, kind) {
        (Cause::Starved, _) => {
            "the operating system did not run the thread: the code is not to blame; see whether the \
             host is too busy or the container's CPU limit too low"
                .into()
        }
        (Cause::Suspended, _) => {
            "the whole process was stopped or its machine paused: the code is not to blame".into()
        }
        (Cause::Blocked(call), _) => blocked(call, stack),
        (Cause::Computing, Kind::Drop) => {
            "computing in the destructor of the future: drop what is large on other threads \
             (shotclock::offload)"
                .into()
        }
        (Cause::Computing, _) => {
            "computing: yield in long loops (shotclock::yield_after or yield_every), or move the work to \
             other threads (shotclock::offload)"
                .into()
        }
        (Cause::Unknown, kind) => unknown(kind).into(),
    }
}

fn unknown(kind: Kind) -> &'static str {
    match kind {
        Kind::Poll | Kind::Contained | Kind::Audited => {
            "await instead of blocking (tokio::time, tokio::net, tokio::sync, tokio::fs), \
             yield in long loops (shotclock::yield_after or yield_every), \
             or move the work to other threads (shotclock::offload)"
        }
        Kind::Drop => {
            "the time went into the destructor of the future: \
             drop what is large, or what blocks when dropped, on other threads (shotclock::offload)"
        }
        Kind::Entered => "split the stretch, or move it to other threads (shotclock::offload)",
    }
}

fn blocked(call: &Syscall, stack: Option<&Stack>) -> String {
    let call_name = match call.name {
        Some(_) => format!("blocked in {call}"),
        None => "blocked".into(),
    };
    let advice = match call.target {
        Target::Clock => "use tokio::time::sleep",
        Target::Word => waiting_for_a_thread(stack),
        Target::Socket => "use tokio::net",
        Target::Pipe => {
            "use tokio::net::unix::pipe, for the output of a child tokio::process, \
             or shotclock::offload"
        }
        Target::File => "use tokio::fs or shotclock::offload",
        Target::Device => "use tokio::io::stdin, or a thread of its own",
        Target::Process => "use tokio::process",
        Target::Events => {
            "another event loop or runtime runs inside this poll: await instead of block_on, or give \
             it a thread of its own"
        }
        Target::Unknown => {
            "await instead (tokio::time, tokio::net, tokio::sync, tokio::fs, tokio::process), or move \
             the call to other threads (shotclock::offload)"
        }
    };
    format!("{call_name}: {advice}")
}

/// Which function of the standard library waits says what for. The more particular comes first: a
/// barrier waits by a condition variable, a channel by parking.
const WAITS: [(&str, &str); 9] = [
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
    let found = WAITS.iter().find(|(word, _)| is_called(word));
    found.map_or(
        "it waits for another thread (a lock, a channel, an end): use tokio::sync and await it \
         (tokio::sync::Mutex, mpsc, Notify)",
        |(_, advice)| advice,
    )
}

//! What the sentinel is to do about the stalls of one watchdog, besides telling of them.

/// How the stacks of stuck threads are taken.
///
/// On Linux, a thread's stack is taken by a signal to it: its handler copies the stack, and
/// everything else is done elsewhere, on the copy. The signal is `SIGURG` unless
/// [`WatchdogBuilder::stack_signal`](crate::WatchdogBuilder::stack_signal) says otherwise. A system call that the
/// thread waits in is interrupted by it; what that means depends on the call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stacks {
    /// Looks before it signals: a thread that computes, or waits in a system call that the kernel
    /// restarts, is signalled. One that waits in a call that a signal would cut short (`nanosleep`,
    /// `poll`, `epoll_wait`, a `futex` with a time limit, a socket with a time-out, a `write` that may
    /// have written a part, …) is signalled only if a function made the call that makes it again. Such
    /// functions are on a list: those of Rust's standard library (`thread::sleep`, parking, channels,
    /// `Command::output`, `File::sync_all`, writing), of `parking_lot`, and of the C library
    /// (`pthread_cond_timedwait`, `getaddrinfo`). They are known by their symbols, so in a stripped program,
    /// and where link-time optimization inlined them, no such thread is signalled. A thread that has the
    /// signal blocked is not signalled either. Of any other thread the report names the call, says why there
    /// is no whole stack (`no_stack`), and has those frames that can be had from outside.
    ///
    /// # Non-guarantees
    ///
    /// A thread may enter such a call in the microseconds between the look and the signal. On x86-64 the
    /// handler then has the call made again, so that it does not fail; but it must find the number of the
    /// call in the code before it. It cannot where one place makes all calls: in the C function
    /// `syscall`, in glibc from 2.41 on, in musl. There, and on other processors, such a call may return
    /// `EINTR`.
    ///
    /// A call that *runs* in the kernel for long, and looks for signals, may return early with a part of
    /// its work: `getrandom` of many megabytes, or reading `/dev/zero`. Nothing distinguishes it from a computation.
    /// The kernel says "running" of both, and its division of a thread's time into user and system is an
    /// estimate over the thread's whole life.
    #[default]
    Auto,
    /// Signals every stuck thread.
    ///
    /// A thread that waits in one of the calls named above gets `EINTR` from it. Rust's standard
    /// library makes most of them again by itself, but hands `ErrorKind::Interrupted` to the caller
    /// where a socket has a time-out. Much C code takes `EINTR` for a failure, or cuts its waiting
    /// short.
    Always,
    /// Takes no stacks, and installs no handler.
    Never,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policy {
    pub(crate) stacks: Stacks,
    /// Not to say which file or socket a thread waits for.
    pub(crate) without_paths: bool,
    /// By age of the stall.
    pub(crate) steps: Vec<EscalationStep>,
}

/// One step of an escalation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct EscalationStep {
    /// Nanoseconds.
    pub(crate) after_nanos: u64,
    pub(crate) action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    /// Takes the stacks of all threads with polls in flight.
    Stacks,
    /// Calls the user's function of that number.
    Call(usize),
    /// Ends the process.
    Abort,
}

//! The settings for the sentinel: stacks, paths and escalation steps.

/// Selects the threads whose stacks the sentinel captures.
///
/// On Linux, the sentinel signals the thread, and the signal handler copies the stack. The sentinel unwinds the copy. The
/// signal is `SIGURG`, or the one of [`WatchdogBuilder::stack_signal`](crate::WatchdogBuilder::stack_signal). It
/// interrupts the system call that the thread waits in, and the effect of that depends on the call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stacks {
    /// Signals a thread only if the signal does no harm.
    ///
    /// The sentinel observes the thread first. It signals a thread that computes, or that waits in a system call that
    /// the kernel restarts.
    ///
    /// A signal would cut other calls short: `nanosleep`, `poll`, `epoll_wait`, a `futex` with a timeout, a socket with
    /// a timeout, a `write` of which a part may be written, and more. The sentinel signals a thread in such a call only
    /// if the function that made the call repeats it. The crate has a list of such functions:
    ///
    /// - Rust's standard library: `thread::sleep`, parking, channels, `Command::output`, `File::sync_all`, writes;
    /// - `parking_lot`;
    /// - the C library: `pthread_cond_timedwait`, `getaddrinfo`.
    ///
    /// It recognizes them by their symbols. So it signals no such thread in a stripped program, or if link-time
    /// optimization inlined the function. It also signals no thread that blocks the signal.
    ///
    /// The report of a thread without a signal names the system call and the reason (`no_stack`). It has the frames that can
    /// be read from outside.
    ///
    /// # Non-guarantees
    ///
    /// A thread may enter such a call in the microseconds between the observation and the signal. On x86-64, the signal
    /// handler then restarts the call, if it finds the number of the call in the code before it. It finds none where one
    /// place makes all calls: in the C function `syscall`, in glibc from 2.41 on, and in musl. There, and on other
    /// processors, such a call may return `EINTR`.
    ///
    /// A call that *runs* in the kernel for long may return early with a part of its work: `getrandom` of many
    /// megabytes, or a read of `/dev/zero`. The kernel says "running" for it as for a computation, so the sentinel
    /// cannot distinguish the two.
    #[default]
    Auto,
    /// Signals each stuck thread.
    ///
    /// A thread that waits in one of the calls above gets `EINTR`. Rust's standard library repeats most of them, but
    /// returns `ErrorKind::Interrupted` from a socket with a timeout. Much C code takes `EINTR` for a failure, or ends its
    /// wait early.
    Always,
    /// Captures no stacks, and installs no handler.
    Never,
}

/// The settings of one watchdog.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policy {
    pub(crate) stacks: Stacks,
    /// Whether to leave out the file or socket that a thread waits for.
    pub(crate) without_paths: bool,
    /// In the order of their age.
    pub(crate) steps: Vec<EscalationStep>,
}

/// One step of an escalation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct EscalationStep {
    pub(crate) after_nanos: u64,
    pub(crate) action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    /// Reports with the stacks of all threads with polls in flight.
    Stacks,
    /// Calls the user's function of that index.
    Call(usize),
    /// Aborts the process.
    Abort,
}

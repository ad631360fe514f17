//! What works here, and why the rest does not.

use std::fmt;

use crate::cgroup;
use crate::procfs::{self, Schedstat};
use crate::stolen_time;
use crate::sys::{self, Breakpoint, Thread};
use crate::watch::Stacks;

/// What works on this system and in this process, and why not what does not. Made by
/// [`Watchdog::capabilities`](crate::Watchdog::capabilities).
///
/// Polls are timed and reported everywhere. What is listed here makes the reports say more; what is
/// missing is reported as unknown. `Display` prints a table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The stack of a stuck thread. Tried out once, when the first watchdog was built.
    pub stacks: Capability,
    /// The system call that a stuck thread waits in, and so what blocks it.
    pub system_calls: Capability,
    /// The processor time of another thread: computing or blocked.
    pub cpu_time: Capability,
    /// The time that a thread waited for a processor: whether it was starved.
    pub run_queue_wait: Capability,
    /// The time that a hypervisor took from the processor of a thread, to within 10 ms: it is not held against
    /// the code. Zero where the hypervisor does not tell, or there is none.
    pub steal_time: Capability,
    /// Whether the container's limit of processor time starved it.
    pub cpu_limit: Capability,
    /// Handing a worker's other tasks over before a poll that is expected to be slow
    /// ([`Watch::contained`](crate::Watch::contained)), on the runtime around the caller.
    pub containment: Capability,
    /// Counting the polls of a worker by a debug register of its processor (`perf_event_open`): whether a worker
    /// of a guarded runtime that computes does so in one poll or in many. Where it is missing, such a worker is
    /// reported later, as [`StuckKind::Busy`](crate::report::StuckKind::Busy).
    ///
    /// It is missing in most containers: the crate does not try it under a seccomp filter, which may end the
    /// process for it.
    pub breakpoints: Capability,
    /// Sleeping without a single wake-up while nothing is in flight.
    pub deep_sleep: Capability,
}

/// Whether something works.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Capability {
    /// It does.
    Available,
    /// It does not, for this reason.
    Unavailable(String),
}

impl Capability {
    /// Whether it works.
    pub fn works(&self) -> bool {
        *self == Capability::Available
    }

    fn from<T>(result: Result<T, String>) -> Self {
        match result {
            Ok(_) => Capability::Available,
            Err(why) => Capability::Unavailable(why),
        }
    }
}

impl Capabilities {
    fn none(why: &str) -> Self {
        let missing = || Capability::Unavailable(why.to_owned());
        Self {
            stacks: missing(),
            system_calls: missing(),
            cpu_time: missing(),
            run_queue_wait: missing(),
            steal_time: missing(),
            cpu_limit: missing(),
            containment: missing(),
            breakpoints: missing(),
            deep_sleep: missing(),
        }
    }

    pub(crate) fn of(stacks: Stacks, obstacle: Option<&str>) -> Self {
        // No sentinel runs there, and what is known may be locked for ever.
        if sys::is_forked() {
            return Self::none("the process is the child of a fork");
        }
        let thread = Thread::current().ok_or("threads cannot be looked at here".to_owned());
        let account = |thread: &Thread| {
            let account = Schedstat::open(thread).and_then(|account| account.run_queue_wait());
            account.ok_or("the scheduler keeps no account of threads (schedstat)".to_owned())
        };
        let cpu_time = |thread: &Thread| {
            let time = thread.cpu_time().filter(|time| *time > 0);
            time.ok_or("the clock of a thread cannot be read".to_owned())
        };
        Self {
            stacks: match stacks {
                Stacks::Never => Capability::Unavailable("switched off (Stacks::Never)".into()),
                _ => Capability::from(super::can_take_stacks()),
            },
            system_calls: Capability::from(thread.clone().and_then(|t| procfs::syscall_state(&t))),
            cpu_time: Capability::from(thread.clone().and_then(|t| cpu_time(&t))),
            run_queue_wait: Capability::from(thread.and_then(|t| account(&t))),
            breakpoints: Capability::from(breakpoint()),
            steal_time: Capability::from(stolen_time::is_known()),
            cpu_limit: Capability::from(cgroup::is_readable()),
            containment: match obstacle {
                None => Capability::Available,
                Some(why) => Capability::Unavailable(why.into()),
            },
            deep_sleep: match sys::fence_every_thread() {
                true => Capability::Available,
                false => Capability::Unavailable("the kernel gives no membarrier".into()),
            },
        }
    }
}

/// Sets one where the calling thread never is.
fn breakpoint() -> Result<(), String> {
    let thread = Thread::current().ok_or("threads cannot be looked at here")?;
    let address = Capabilities::of as *const () as usize;
    let breakpoint = Breakpoint::set(thread.id, address as u64);
    match breakpoint {
        Ok(_) => Ok(()),
        Err(why) => Err(format!(
            "the kernel permits no breakpoint (perf_event_open): {why}"
        )),
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Capability::Available => f.write_str("works"),
            Capability::Unavailable(why) => write!(f, "missing: {why}"),
        }
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            stacks,
            system_calls,
            cpu_time,
            run_queue_wait,
            steal_time,
            cpu_limit,
            containment,
            breakpoints,
            deep_sleep,
        } = self;
        writeln!(f, "stacks          {stacks}")?;
        writeln!(f, "system calls    {system_calls}")?;
        writeln!(f, "cpu time        {cpu_time}")?;
        writeln!(f, "run queue wait  {run_queue_wait}")?;
        writeln!(f, "steal time      {steal_time}")?;
        writeln!(f, "cpu limit       {cpu_limit}")?;
        writeln!(f, "containment     {containment}")?;
        writeln!(f, "breakpoints     {breakpoints}")?;
        write!(f, "deep sleep      {deep_sleep}")
    }
}

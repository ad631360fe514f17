//! The capabilities of this system and process.

use std::fmt;

use crate::cgroup;
use crate::procfs::{self, Schedstat};
use crate::stolen_time;
use crate::sys::{self, Breakpoint, Thread};
use crate::watch::Stacks;

/// Lists what works on this system and in this process, with a reason for the rest.
/// [`Watchdog::capabilities`](crate::Watchdog::capabilities) makes it.
///
/// The watchdog times and reports polls everywhere. Each capability adds to the reports, and without it the reports say
/// "unknown". `Display` prints a table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The stack of a stuck thread. The first watchdog tests it once.
    pub stacks: Capability,
    /// The system call that a stuck thread waits in, and so what blocks it.
    pub system_calls: Capability,
    /// The CPU time of another thread, which distinguishes computing from blocked.
    pub cpu_time: Capability,
    /// The time of a thread on the run queue, which shows that it was starved.
    pub run_queue_wait: Capability,
    /// The time that a hypervisor took from the CPU of a thread, to within 10 ms. The watchdog does not charge the code
    /// for it. It is zero if the hypervisor does not report it, or if there is none.
    pub steal_time: Capability,
    /// Whether the CPU limit of the container starved the thread.
    pub cpu_limit: Capability,
    /// The handover of a worker's other tasks before a poll that is expected to be slow
    /// ([`Watch::contained`](crate::Watch::contained)), on the caller's runtime.
    pub containment: Capability,
    /// The count of a worker's polls by a debug register of its processor (`perf_event_open`).
    ///
    /// It shows whether a worker of a guarded runtime computes in one poll or in many. Without it, the sentinel reports
    /// such a worker later, as [`StuckKind::Busy`](crate::report::StuckKind::Busy). Most containers do not have it.
    /// A seccomp filter may end the process for this system call, so the crate does not try it under one.
    pub breakpoints: Capability,
    /// The sleep of the sentinel without any wake-up while nothing is in flight.
    pub deep_sleep: Capability,
}

/// Says whether something works.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Capability {
    /// It works.
    Available,
    /// It does not work, for this reason.
    Unavailable(String),
}

impl Capability {
    /// Returns whether it works.
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
        // No sentinel runs in the child, and a thread of the parent may have locked what is known.
        if sys::is_forked() {
            return Self::none("the process is the child of a fork");
        }
        let thread =
            Thread::current().ok_or("this system does not let a thread be observed".to_owned());
        let account = |thread: &Thread| {
            let account = Schedstat::open(thread).and_then(|account| account.run_queue_wait());
            account.ok_or("the kernel has no scheduler statistics (schedstat)".to_owned())
        };
        let cpu_time = |thread: &Thread| {
            let time = thread.cpu_time().filter(|time| *time > 0);
            time.ok_or("the CPU clock of a thread cannot be read".to_owned())
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
                false => Capability::Unavailable("the kernel has no membarrier".into()),
            },
        }
    }
}

/// Sets a breakpoint at a place that the calling thread does not execute.
fn breakpoint() -> Result<(), String> {
    let thread = Thread::current().ok_or("this system does not let a thread be observed")?;
    let address = Capabilities::of as *const () as usize;
    let breakpoint = Breakpoint::set(thread.id, address as u64);
    match breakpoint {
        Ok(_) => Ok(()),
        Err(why) => Err(format!(
            "the system permits no breakpoint (perf_event_open): {why}"
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

//! Proves by hardware breakpoints that a poll has not returned.
//!
//! A stack shows the call by which tokio polls the task ([`PollSite`]). A breakpoint at its return address counts the
//! polls that return there. While the count stays, the poll in the stack has not returned.

use super::diagnose::thread_of;
use super::poll_site::{Function, PollSite, outermost_poll};
use super::run_state::RunState;
use super::same_poll::Continuity;
use super::stack_sampler::{MAX_WAIT, StackSampler, Target};
use crate::slot::{InFlightPoll, Slot};
use crate::sys::{Breakpoint, Thread};
use crate::watch::Stacks;

/// The calls by which tokio polls tasks in this program, as far as stacks have shown them.
#[derive(Debug)]
pub(super) struct PollSites {
    addresses: Vec<usize>,
    /// Whether the system permits breakpoints, as far as it is known.
    is_permitted: bool,
}

/// Breakpoints on one thread: one of the processor's four registers stays free for a debugger. tokio has two such calls
/// for each flavor of runtime.
const MAX_SITES: usize = 3;

impl Default for PollSites {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            is_permitted: true,
        }
    }
}

impl PollSites {
    fn add(&mut self, site: usize) {
        if !self.addresses.contains(&site) && self.addresses.len() < MAX_SITES {
            self.addresses.push(site);
        }
    }
}

/// The breakpoints of one thread, while its worker may be stuck.
///
/// The sentinel reads the count before it takes the stack, so the proof holds from then on.
#[derive(Debug, Default)]
pub(super) struct Breakpoints {
    armed: Vec<(usize, Breakpoint)>,
    latest: Option<u64>,
    /// The count at which the stack showed a poll that returns to one of the sites.
    proved_at: Option<u64>,
}

/// A worker's thread whose stack may be sampled.
pub(super) struct SampleTarget<'a> {
    pub(super) slot: &'a Slot,
    /// The interval of the worker.
    pub(super) poll: &'a InFlightPoll,
    pub(super) sampler: &'a mut StackSampler,
    pub(super) stacks: Stacks,
}

impl Breakpoints {
    /// Returns what the breakpoints prove since the last scan. Where a proof begins, nothing is proved yet.
    pub(super) fn continuity(
        &mut self,
        sites: &mut PollSites,
        target: &mut SampleTarget<'_>,
    ) -> Continuity {
        if !sites.is_permitted {
            return Continuity::Unproved;
        }
        let Some(thread) = thread_of(target.slot) else {
            return Continuity::Unproved;
        };
        let was_armed = !self.armed.is_empty();
        self.arm(sites, &thread);
        let count = self.count();
        if was_armed && count.is_some() && self.proved_at == count {
            return Continuity::SamePoll;
        }
        let latest = std::mem::replace(&mut self.latest, count);
        self.proved_at = None;
        if was_armed && latest != count {
            return Continuity::AnotherPoll;
        }
        // No poll has returned since the last scan, or none was counted. It may be a long one.
        if let Some(site) = target.poll_site() {
            sites.add(site.return_address);
            self.arm(sites, &thread);
            if self.is_armed_at(site.return_address) {
                self.begin_proof(target);
            }
        }
        Continuity::Unproved
    }

    /// Begins a proof by a stack that is taken while the breakpoints count.
    fn begin_proof(&mut self, target: &mut SampleTarget<'_>) {
        let count = self.count();
        let site = target.poll_site();
        if site.is_some_and(|site| self.is_armed_at(site.return_address)) {
            self.proved_at = count;
        }
        self.latest = count;
    }

    /// Returns whether the poll of the proof has not returned.
    pub(super) fn is_still_proved(&self) -> bool {
        self.proved_at.is_some() && self.proved_at == self.count()
    }

    fn arm(&mut self, sites: &mut PollSites, thread: &Thread) {
        for address in &sites.addresses {
            if self.is_armed_at(*address) {
                continue;
            }
            match Breakpoint::set(thread.id, *address as u64) {
                Ok(breakpoint) => self.armed.push((*address, breakpoint)),
                // The thread has ended, or a debugger uses the registers.
                Err(error) if is_temporary(&error) => {}
                Err(_) => sites.is_permitted = false,
            }
        }
    }

    fn is_armed_at(&self, site: usize) -> bool {
        self.armed.iter().any(|(address, _)| *address == site)
    }

    /// Returns how many polls have returned.
    fn count(&self) -> Option<u64> {
        let counts = self.armed.iter().map(|(_, breakpoint)| breakpoint.count());
        counts.sum()
    }
}

fn is_temporary(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ResourceBusy, StorageFull};
    /// The number of the error "no such process" (`ESRCH`).
    const NO_SUCH_THREAD: i32 = 3;
    let is_busy = matches!(error.kind(), StorageFull | ResourceBusy);
    is_busy || error.raw_os_error() == Some(NO_SUCH_THREAD)
}

impl SampleTarget<'_> {
    /// Returns the call of the poll that the thread is in, by its stack.
    pub(super) fn poll_site(&mut self) -> Option<PollSite> {
        let thread = thread_of(self.slot)?;
        let target = Target::observe(self.slot, self.poll, &thread, MAX_WAIT);
        // A thread that is not scheduled would not answer in time.
        if !matches!(target.run_state, RunState::OnCpu | RunState::Asleep) {
            return None;
        }
        let stack = self.sampler.sample(&target, self.stacks).stack?;
        let functions: Vec<_> = stack
            .raw_frames()
            .map(|raw_frame| Function {
                address: raw_frame.address,
                is_return: raw_frame.is_return,
                known: self.sampler.known_frame(raw_frame),
            })
            .collect();
        outermost_poll(&functions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn add_keeps_few_sites_and_each_once() {
        let mut sites = PollSites::default();
        for address in [1, 2, 1, 3, 4, 5] {
            sites.add(address);
        }
        assert_eq!(sites.addresses, [1, 2, 3]);
    }
}

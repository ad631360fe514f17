//! Whether a worker is still in the poll that it was in at the look before.
//!
//! Counters of the runtime that stand still prove nothing: tokio stores them once in `event_interval` ticks,
//! each of which may poll up to three tasks more from the LIFO slot. So the sentinel compares what two looks
//! saw of the thread. Evidence, strongest first:
//!
//! 1. A task of ours was polled on the thread: it is in another poll.
//! 2. The outermost watched poll is the same: so is the poll of the task around it.
//! 3. It slept at both looks and had no turn on a processor between them: it is in one system call.
//! 4. A breakpoint behind the call that polls tasks ([`Breakpoints`]) was hit, or was not.
//!
//! What none of these settles is unproved, and is never reported as one poll.

use super::examine::{Stance, stance};
use super::poll_site::{Function, PollSite, outermost_poll};
use super::stacks::{PATIENCE, Subject, Taker};
use crate::procfs::{self, Standpoint};
use crate::slot::{InFlightPoll, Kind, Slot};
use crate::sys::{Breakpoint, Thread};
use crate::watch::Stacks;

/// What two looks at a worker, one after the other, prove.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Link {
    SamePoll,
    AnotherPoll,
    Unproved,
}

/// What one look saw of a worker's thread.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Witness {
    /// Of the slot of the thread. `None` if the thread is not known: then nothing is proved.
    thread: Option<u64>,
    /// How many tasks of ours the worker has polled.
    own_tasks: u64,
    /// The number of the outermost watched poll in flight.
    poll: Option<u64>,
    asleep: Option<Asleep>,
}

/// A thread that waits, in a system call or for a page of memory.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Asleep {
    /// How many turns on a processor it has had.
    turns: u64,
    call: Option<i64>,
}

/// How many turns it takes a thread to answer: its answer wakes the sentinel, which often has its processor
/// before it sleeps again.
const TURNS_TO_ANSWER: u64 = 2;

impl Asleep {
    /// Whether a thread that was asked for its stack sleeps in the same call again.
    fn is_again(self, before: Self) -> bool {
        let turns = self.turns.checked_sub(before.turns);
        self.call == before.call && turns.is_some_and(|turns| turns <= TURNS_TO_ANSWER)
    }
}

impl Witness {
    /// Looks at the thread of a slot; `thread` is the number of its seat there.
    pub(super) fn of(slot: &Slot, thread: u64, own_tasks: u64) -> Self {
        // The guard that `enter` gives may be kept across an `.await`, and then outlives a poll.
        let nest = slot.read();
        let mut polls = nest.iter().filter(|poll| poll.kind != Kind::Entered);
        Self {
            thread: Some(thread),
            own_tasks,
            poll: polls.next().map(|poll| poll.seq),
            asleep: asleep(slot),
        }
    }

    /// What this look proves with the one `before` it.
    pub(super) fn link(&self, before: &Self) -> Link {
        if self.thread.is_none() || self.thread != before.thread {
            Link::Unproved
        } else if self.own_tasks != before.own_tasks {
            Link::AnotherPoll
        } else if self.is_in_the_poll_of(before) || self.sleeps_on_since(before) {
            Link::SamePoll
        } else {
            Link::Unproved
        }
    }

    fn is_in_the_poll_of(&self, before: &Self) -> bool {
        self.poll.is_some() && self.poll == before.poll
    }

    fn sleeps_on_since(&self, before: &Self) -> bool {
        self.asleep.is_some() && self.asleep == before.asleep
    }

    /// The same, if the thread may have been asked for its stack between the two: then it had a turn to
    /// answer, and sleeps in the same call again.
    pub(super) fn link_after_a_stack(&self, before: &Self) -> Link {
        match (self.asleep, before.asleep) {
            (Some(now), Some(then)) if now.is_again(then) => self.link(&Self {
                asleep: self.asleep,
                ..*before
            }),
            _ => self.link(before),
        }
    }

    /// Whether the thread sleeps now and did not at the look before.
    pub(super) fn has_fallen_asleep_since(&self, before: &Self) -> bool {
        self.asleep.is_some() && before.asleep.is_none()
    }

    pub(super) fn is_asleep(&self) -> bool {
        self.asleep.is_some()
    }
}

/// The turns first: one that the thread has between the two readings is then missing, and shows at the next
/// look as one too many.
fn asleep(slot: &Slot) -> Option<Asleep> {
    let (turns, thread) = {
        let mut diagnostics = slot.diagnostics();
        (
            diagnostics.turns()?.count,
            diagnostics.owner.as_ref()?.thread.clone()?,
        )
    };
    let standpoint = procfs::standpoint(&thread).ok();
    let call = match &standpoint {
        Some(Standpoint::Waits(waits)) => Some(waits.number),
        _ => None,
    };
    (stance(&thread, standpoint.as_ref()) == Stance::Asleep).then_some(Asleep { turns, call })
}

/// Where tokio polls tasks in this program: the sites that were seen in stacks.
#[derive(Debug)]
pub(super) struct PollSites {
    addresses: Vec<usize>,
    /// Whether the system permits breakpoints, as far as is known.
    is_permitted: bool,
}

/// Of the four registers of a processor one is left to others, debuggers say. tokio has two such places for
/// each flavor of runtime.
const MAX_SITES: usize = 3;

impl Default for PollSites {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            is_permitted: true,
        }
    }
}

/// Breakpoints of one thread at the sites where polls return, while its worker may be stuck.
///
/// The poll that a stack shows has not ended as long as its site is not hit. So the count is read before the
/// stack is taken, and proves from then on.
#[derive(Debug, Default)]
pub(super) struct Breakpoints {
    armed: Vec<(usize, Breakpoint)>,
    latest: Option<u64>,
    /// The count at which the stack showed a poll that returns to one of the sites.
    proved_at: Option<u64>,
}

/// A thread that may be asked for its stack.
pub(super) struct Asked<'a> {
    pub(super) slot: &'a Slot,
    /// The stretch of its worker.
    pub(super) poll: &'a InFlightPoll,
    pub(super) taker: &'a mut Taker,
    pub(super) stacks: Stacks,
}

impl Breakpoints {
    /// What the breakpoints prove since the look before. [`Link::Unproved`] also where the proof begins.
    pub(super) fn link(&mut self, sites: &mut PollSites, asked: &mut Asked<'_>) -> Link {
        if !sites.is_permitted {
            return Link::Unproved;
        }
        let Some(thread) = thread_of(asked.slot) else {
            return Link::Unproved;
        };
        let was_armed = !self.armed.is_empty();
        self.arm(sites, &thread);
        let count = self.count();
        if was_armed && count.is_some() && self.proved_at == count {
            return Link::SamePoll;
        }
        let latest = std::mem::replace(&mut self.latest, count);
        self.proved_at = None;
        if was_armed && latest != count {
            return Link::AnotherPoll;
        }
        // No poll has returned since the last look, or none was counted: it may be a long one.
        if let Some(site) = asked.poll_site() {
            sites.learn(site.return_address);
            self.arm(sites, &thread);
            if self.is_armed_at(site.return_address) {
                self.begin(asked);
            }
        }
        Link::Unproved
    }

    /// Begins a proof, by a stack that is taken while the breakpoints count.
    fn begin(&mut self, asked: &mut Asked<'_>) {
        let count = self.count();
        let site = asked.poll_site();
        if site.is_some_and(|site| self.is_armed_at(site.return_address)) {
            self.proved_at = count;
        }
        self.latest = count;
    }

    /// Whether the poll of the proof has not returned.
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
                // The thread has ended, or a debugger has the registers.
                Err(why) if is_for_now(&why) => {}
                Err(_) => sites.is_permitted = false,
            }
        }
    }

    fn is_armed_at(&self, site: usize) -> bool {
        self.armed.iter().any(|(address, _)| *address == site)
    }

    /// How often a poll has returned.
    fn count(&self) -> Option<u64> {
        let counts = self.armed.iter().map(|(_, breakpoint)| breakpoint.count());
        counts.sum()
    }
}

fn is_for_now(why: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ResourceBusy, StorageFull};
    const NO_SUCH_THREAD: i32 = 3;
    matches!(why.kind(), StorageFull | ResourceBusy) || why.raw_os_error() == Some(NO_SUCH_THREAD)
}

impl PollSites {
    fn learn(&mut self, site: usize) {
        if !self.addresses.contains(&site) && self.addresses.len() < MAX_SITES {
            self.addresses.push(site);
        }
    }
}

impl Asked<'_> {
    /// Where the poll returns to that the thread is in, by its stack.
    pub(super) fn poll_site(&mut self) -> Option<PollSite> {
        let thread = thread_of(self.slot)?;
        let standpoint = procfs::standpoint(&thread).ok();
        let stance = stance(&thread, standpoint.as_ref());
        // One that is not run would not answer in time.
        if !matches!(stance, Stance::OnCpu | Stance::Asleep) {
            return None;
        }
        let subject = Subject {
            slot: self.slot,
            poll: self.poll,
            thread: &thread,
            standpoint: standpoint.as_ref(),
            is_on_cpu: stance == Stance::OnCpu,
            patience: PATIENCE,
        };
        let stack = self.taker.take(&subject, self.stacks).stack?;
        let functions: Vec<_> = stack
            .steps()
            .map(|step| Function {
                address: step.address,
                is_return: step.is_return,
                part: self.taker.part(step),
            })
            .collect();
        outermost_poll(&functions)
    }
}

fn thread_of(slot: &Slot) -> Option<Thread> {
    slot.diagnostics().owner.as_ref()?.thread.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASLEEP: Asleep = Asleep {
        turns: 7,
        call: Some(202),
    };

    fn witness() -> Witness {
        Witness {
            thread: Some(1),
            own_tasks: 5,
            poll: None,
            asleep: None,
        }
    }

    fn asleep(turns: u64, call: i64) -> Witness {
        Witness {
            asleep: Some(Asleep {
                turns,
                call: Some(call),
            }),
            ..witness()
        }
    }

    fn polling(poll: u64) -> Witness {
        Witness {
            poll: Some(poll),
            ..witness()
        }
    }

    #[test]
    fn worker_with_standing_counters_alone_is_unproved() {
        assert_eq!(witness().link(&witness()), Link::Unproved);
        assert_eq!(Witness::default().link(&Witness::default()), Link::Unproved);
    }

    #[test]
    fn sleep_without_a_turn_between_is_the_same_poll() {
        assert_eq!(asleep(7, 202).link(&asleep(7, 202)), Link::SamePoll);
        assert_eq!(asleep(8, 202).link(&asleep(7, 202)), Link::Unproved);
        assert_eq!(asleep(7, 202).link(&witness()), Link::Unproved);
        assert_eq!(witness().link(&asleep(7, 202)), Link::Unproved);
    }

    #[test]
    fn sleep_after_the_turns_for_a_stack_is_the_same_poll_in_the_same_call() {
        let before = asleep(7, 202);
        for (after, link) in [
            (asleep(7, 202), Link::SamePoll),
            (asleep(8, 202), Link::SamePoll),
            (asleep(8, 230), Link::Unproved),
            (asleep(9, 202), Link::SamePoll),
            (asleep(10, 202), Link::Unproved),
            (asleep(6, 202), Link::Unproved),
            (witness(), Link::Unproved),
        ] {
            assert_eq!(after.link_after_a_stack(&before), link, "{after:?}");
        }
        assert_eq!(
            asleep(8, 202).link_after_a_stack(&witness()),
            Link::Unproved
        );
        assert_eq!(polling(3).link_after_a_stack(&polling(3)), Link::SamePoll);
    }

    #[test]
    fn thread_has_fallen_asleep_only_if_it_was_awake_before() {
        assert!(asleep(7, 202).has_fallen_asleep_since(&witness()));
        assert!(!asleep(8, 202).has_fallen_asleep_since(&asleep(7, 202)));
        assert!(!witness().has_fallen_asleep_since(&witness()));
    }

    #[test]
    fn watched_poll_that_is_still_in_flight_is_the_same_poll() {
        assert_eq!(polling(3).link(&polling(3)), Link::SamePoll);
        assert_eq!(polling(4).link(&polling(3)), Link::Unproved);
        assert_eq!(polling(3).link(&witness()), Link::Unproved);
    }

    #[test]
    fn task_of_ours_that_was_polled_is_another_poll() {
        let before = Witness {
            asleep: Some(ASLEEP),
            ..polling(3)
        };
        let now = Witness {
            own_tasks: 6,
            ..before
        };
        assert_eq!(now.link(&before), Link::AnotherPoll);
    }

    #[test]
    fn another_thread_proves_nothing() {
        let before = polling(3);
        let now = Witness {
            thread: Some(2),
            ..before
        };
        assert_eq!(now.link(&before), Link::Unproved);
    }

    #[test]
    fn poll_sites_are_few_and_learnt_once() {
        let mut sites = PollSites::default();
        for address in [1, 2, 1, 3, 4, 5] {
            sites.learn(address);
        }
        assert_eq!(sites.addresses, [1, 2, 3]);
    }
}

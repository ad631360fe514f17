//! What one poll took: by the wall, and of its own.
//!
//! The operating system accounts for a thread's wait for a processor. Less that wait, the time of a
//! poll is what it computed and what it chose to sleep; so a host that does not run it cannot make it
//! slow.

use crate::clock::Clock;
use crate::procfs::Schedstat;
use crate::sys::Thread;

/// A clock and an account cannot be read at one moment, but so near that nothing was between the two;
/// where something was, they are read again.
const NEAR: u64 = 50_000;
const TRIES: u32 = 8;

thread_local! {
    /// Of this thread; opened when its first poll is audited.
    static ACCOUNTS: Option<Accounts> = Accounts::open();
}

struct Accounts {
    thread: Thread,
    schedstat: Schedstat,
}

/// What a thread was accounted for since it began, in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Account {
    cpu: u64,
    wait: u64,
}

impl Accounts {
    fn open() -> Option<Self> {
        let thread = Thread::current()?;
        let schedstat = Schedstat::open(&thread)?;
        Some(Self { thread, schedstat })
    }

    fn read(&self) -> Option<Account> {
        Some(Account {
            cpu: self.thread.cpu_time()?,
            wait: self.schedstat.run_queue_wait()?,
        })
    }
}

/// `None` where the operating system does not tell, or the thread is ending.
fn account() -> Option<Account> {
    let read = |accounts: &Option<Accounts>| accounts.as_ref().and_then(Accounts::read);
    ACCOUNTS.try_with(read).ok().flatten()
}

/// The time of one poll, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Times {
    pub(super) wall: u64,
    pub(super) own: Option<Own>,
}

impl Times {
    /// With so much of the wait for a processor counted as the poll's own after all: it slept, and was
    /// woken for its stack.
    pub(super) fn with_disturbance(self, nanos: u64) -> Self {
        let own = self.own.map(|own| Own {
            nanos: own.nanos.saturating_add(nanos).min(self.wall),
            ..own
        });
        Self { own, ..self }
    }
}

/// The part that the thread spent by its own choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Own {
    pub(super) nanos: u64,
    /// Of it, on a processor; the rest it slept.
    pub(super) cpu: u64,
}

/// A poll that is being timed, on the thread that it began on.
pub(super) struct Stopwatch {
    /// A raw reading of the clock.
    pub(super) start: u64,
    account: Option<Account>,
}

impl Stopwatch {
    pub(super) fn start(clock: &Clock) -> Self {
        let mut before = clock.raw();
        let mut tries = 0;
        loop {
            let account = account();
            let start = clock.raw();
            tries += 1;
            if clock.nanos_between(before, start) <= NEAR || tries == TRIES {
                return Self { start, account };
            }
            before = start;
        }
    }

    /// The times of a poll that ended at `end`, a raw reading of just now.
    pub(super) fn stop(&self, clock: &Clock, end: u64) -> Times {
        Times {
            wall: clock.nanos_between(self.start, end),
            own: self.own(clock, end),
        }
    }

    fn own(&self, clock: &Clock, end: u64) -> Option<Own> {
        let since = self.account?;
        let mut before = end;
        let mut tries = 0;
        loop {
            let now = account()?;
            let after = clock.raw();
            tries += 1;
            if clock.nanos_between(before, after) <= NEAR || tries == TRIES {
                let wall = clock.nanos_between(self.start, end);
                let until = clock.nanos_between(self.start, before);
                return Some(own(since, now, wall, until));
            }
            before = after;
        }
    }
}

/// Of a poll that took `wall`; its last account was taken when `until` had passed since it began.
fn own(since: Account, now: Account, wall: u64, until: u64) -> Own {
    let waited = now.wait.saturating_sub(since.wait);
    let nanos = until.saturating_sub(waited).min(wall);
    let cpu = now.cpu.saturating_sub(since.cpu).min(nanos);
    Own { nanos, cpu }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SINCE: Account = Account { cpu: 100, wait: 40 };

    fn own_of(cpu: u64, wait: u64, wall: u64, until: u64) -> (u64, u64) {
        let now = Account {
            cpu: SINCE.cpu + cpu,
            wait: SINCE.wait + wait,
        };
        let own = own(SINCE, now, wall, until);
        (own.nanos, own.cpu)
    }

    #[test]
    fn the_wait_for_a_processor_is_not_the_polls_own() {
        assert_eq!(own_of(3, 0, 10, 10), (10, 3));
        assert_eq!(own_of(3, 6, 10, 10), (4, 3));
    }

    #[test]
    fn what_was_waited_after_the_end_is_not_taken_from_the_poll() {
        // It ended after 10, and then waited for 30 before its account was read.
        assert_eq!(own_of(10, 30, 10, 41), (10, 10));
    }

    #[test]
    fn accounts_that_do_not_add_up_never_give_more_than_there_was() {
        assert_eq!(own_of(50, 0, 10, 10), (10, 10));
        assert_eq!(own_of(0, 70, 10, 10), (0, 0));
    }

    #[test]
    fn a_sleep_that_was_disturbed_is_as_long_as_it_was() {
        let times = |nanos| Times {
            wall: 30,
            own: Some(Own { nanos, cpu: 1 }),
        };
        assert_eq!(times(24).with_disturbance(5), times(29));
        assert_eq!(times(24).with_disturbance(50), times(30));
        let unknown = Times {
            wall: 30,
            own: None,
        };
        assert_eq!(unknown.with_disturbance(5), unknown);
    }

    #[test]
    #[cfg(all(target_os = "linux", not(any(miri, shotclock_loom))))]
    fn a_sleep_is_the_polls_own_and_no_processor_time() {
        let clock = Clock::new();
        let stopwatch = Stopwatch::start(&clock);
        std::thread::sleep(std::time::Duration::from_millis(20));
        let times = stopwatch.stop(&clock, clock.raw());
        let own = times.own.unwrap();
        assert!(
            own.nanos >= 20_000_000 && own.nanos <= times.wall,
            "{times:?}"
        );
        assert!(own.cpu < own.nanos / 2, "{times:?}");
    }
}

//! Measures one poll: its wall time, and the active time of its thread.
//!
//! The operating system counts a thread's wait for a processor. Without that wait, the time of a poll is what it computed
//! and what it slept. So a busy host cannot make an audited poll slow.

use crate::clock::Clock;
use crate::procfs::Schedstat;
use crate::sys::Thread;

/// The clock and the CPU counters cannot be read at one moment. Two readings this close had no interruption between them;
/// otherwise they are read again.
const MAX_GAP_NANOS: u64 = 50_000;
const MAX_TRIES: u32 = 8;

thread_local! {
    /// The counters of this thread, opened when its first poll is audited.
    static COUNTERS: Option<CpuCounters> = CpuCounters::open();
}

struct CpuCounters {
    thread: Thread,
    schedstat: Schedstat,
}

/// The nanoseconds since a thread began.
#[derive(Clone, Copy, Debug)]
struct CpuReading {
    cpu: u64,
    wait: u64,
}

impl CpuCounters {
    fn open() -> Option<Self> {
        let thread = Thread::current()?;
        let schedstat = Schedstat::open(&thread)?;
        Some(Self { thread, schedstat })
    }

    fn read(&self) -> Option<CpuReading> {
        Some(CpuReading {
            cpu: self.thread.cpu_time()?,
            wait: self.schedstat.run_queue_wait()?,
        })
    }
}

/// `None` without support by the operating system, and while the thread ends.
fn read_counters() -> Option<CpuReading> {
    let read = |counters: &Option<CpuCounters>| counters.as_ref().and_then(CpuCounters::read);
    COUNTERS.try_with(read).ok().flatten()
}

/// The time of one poll, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ThreadTimes {
    pub(super) wall: u64,
    pub(super) active: Option<ActiveTime>,
}

impl ThreadTimes {
    /// Adds a part of the wait for a processor to the active time: the poll slept, and our signal woke it.
    pub(super) fn with_disturbance(self, nanos: u64) -> Self {
        let active = self.active.map(|active| ActiveTime {
            nanos: active.nanos.saturating_add(nanos).min(self.wall),
            ..active
        });
        Self { active, ..self }
    }
}

/// The time in which the thread ran or slept by its own action.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ActiveTime {
    pub(super) nanos: u64,
    /// The part on a processor. The thread slept in the rest.
    pub(super) cpu: u64,
}

/// Times one poll, on the thread that it began on.
pub(super) struct Stopwatch {
    /// A raw reading of the clock.
    pub(super) start: u64,
    reading: Option<CpuReading>,
}

impl Stopwatch {
    pub(super) fn start(clock: &Clock) -> Self {
        let mut before = clock.raw();
        let mut tries = 0;
        loop {
            let reading = read_counters();
            let start = clock.raw();
            tries += 1;
            if clock.nanos_between(before, start) <= MAX_GAP_NANOS || tries == MAX_TRIES {
                return Self { start, reading };
            }
            before = start;
        }
    }

    /// The times of a poll that ended at `end`, a raw reading of just now.
    pub(super) fn stop(&self, clock: &Clock, end: u64) -> ThreadTimes {
        ThreadTimes {
            wall: clock.nanos_between(self.start, end),
            active: self.active(clock, end),
        }
    }

    fn active(&self, clock: &Clock, end: u64) -> Option<ActiveTime> {
        let since = self.reading?;
        let mut before = end;
        let mut tries = 0;
        loop {
            let now = read_counters()?;
            let after = clock.raw();
            tries += 1;
            if clock.nanos_between(before, after) <= MAX_GAP_NANOS || tries == MAX_TRIES {
                let wall = clock.nanos_between(self.start, end);
                let until = clock.nanos_between(self.start, before);
                return Some(active_time(since, now, wall, until));
            }
            before = after;
        }
    }
}

/// Computes the active time of a poll that took `wall`. The last reading was taken `until` after its begin.
fn active_time(since: CpuReading, now: CpuReading, wall: u64, until: u64) -> ActiveTime {
    let waited = now.wait.saturating_sub(since.wait);
    let nanos = until.saturating_sub(waited).min(wall);
    let cpu = now.cpu.saturating_sub(since.cpu).min(nanos);
    ActiveTime { nanos, cpu }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SINCE: CpuReading = CpuReading { cpu: 100, wait: 40 };

    fn active_of(cpu: u64, wait: u64, wall: u64, until: u64) -> (u64, u64) {
        let now = CpuReading {
            cpu: SINCE.cpu + cpu,
            wait: SINCE.wait + wait,
        };
        let active = active_time(SINCE, now, wall, until);
        (active.nanos, active.cpu)
    }

    #[test]
    fn active_time_leaves_out_the_wait_for_a_processor() {
        assert_eq!(active_of(3, 0, 10, 10), (10, 3));
        assert_eq!(active_of(3, 6, 10, 10), (4, 3));
    }

    #[test]
    fn active_time_keeps_the_wait_after_the_end_apart() {
        // It ended after 10, and then waited for 30 before the counters were read.
        assert_eq!(active_of(10, 30, 10, 41), (10, 10));
    }

    #[test]
    fn active_time_of_inconsistent_readings_is_at_most_the_wall_time() {
        assert_eq!(active_of(50, 0, 10, 10), (10, 10));
        assert_eq!(active_of(0, 70, 10, 10), (0, 0));
    }

    #[test]
    fn with_disturbance_restores_the_length_of_a_sleep() {
        let times = |nanos| ThreadTimes {
            wall: 30,
            active: Some(ActiveTime { nanos, cpu: 1 }),
        };
        assert_eq!(times(24).with_disturbance(5), times(29));
        assert_eq!(times(24).with_disturbance(50), times(30));
        let unknown = ThreadTimes {
            wall: 30,
            active: None,
        };
        assert_eq!(unknown.with_disturbance(5), unknown);
    }

    #[test]
    #[cfg(all(target_os = "linux", not(any(miri, shotclock_loom))))]
    fn stop_after_a_sleep_counts_it_as_active_without_cpu() {
        let clock = Clock::new();
        let stopwatch = Stopwatch::start(&clock);
        std::thread::sleep(std::time::Duration::from_millis(20));
        let times = stopwatch.stop(&clock, clock.raw());
        let active = times.active.unwrap();
        assert!(
            active.nanos >= 20_000_000 && active.nanos <= times.wall,
            "{times:?}"
        );
        assert!(active.cpu < active.nanos / 2, "{times:?}");
    }
}

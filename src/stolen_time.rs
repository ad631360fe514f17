//! Floor 1: stolen time, which a hypervisor took from the CPUs of this machine.
//!
//! It is neither run-queue wait nor CPU time of a thread, so it looks like blocking. The kernel counts it for each CPU, in
//! ticks of 10 ms. The difference of two counts may be one tick too small, because both are rounded down. So this module
//! adds a tick to a difference above zero. It adds none to zero. Otherwise, on a virtual machine, no poll that exceeds its
//! budget by less than a tick would be reported.

use std::fs::File;
use std::sync::{Mutex, MutexGuard};

use crate::clock::Clock;
use crate::procfs::read_from_start;
use crate::sync::IgnorePoison as _;

/// A tick of `/proc/stat`. `USER_HZ` is 100 on every Linux that Rust compiles for.
const TICK_NANOS: u64 = 10_000_000;

/// The shortest time between two readings while polls are in flight: that between two CPU samples.
const READING_INTERVAL_NANOS: u64 = 50_000_000;
/// A reading may take one part in this number of the time. The file is longer on machines with many CPUs.
const MAX_COST_DIVISOR: u64 = 200;

/// A count of at most this age counts as one of now. It is a tenth of a tick.
const MAX_AGE_NANOS: u64 = TICK_NANOS / 10;

/// The readings that are kept. With more, every second one is dropped, so older times have fewer.
const MAX_READINGS: usize = 64;

/// The part of the file that is read: enough for 512 CPUs.
const MAX_FILE_BYTES: usize = 64 * 1024;

/// The counts of the kernel, in ticks.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct CpuCounts {
    /// By the number of the CPU.
    stolen: Vec<(u32, u64)>,
}

/// Parses the lines `cpu0`, `cpu1` … of `/proc/stat`. `None` if they have no stolen time.
pub(crate) fn parse_counts(stat: &str) -> Option<CpuCounts> {
    let stolen: Vec<_> = stat.lines().filter_map(parse_line).collect();
    (!stolen.is_empty()).then_some(CpuCounts { stolen })
}

/// Parses a line: user, nice, system, idle, iowait, two kinds of interrupts, and then the stolen time.
fn parse_line(line: &str) -> Option<(u32, u64)> {
    let mut words = line.strip_prefix("cpu")?.split(' ');
    let processor = words.next()?.parse().ok()?;
    Some((processor, words.nth(7)?.parse().ok()?))
}

impl CpuCounts {
    #[cfg(any(test, fuzzing))]
    #[allow(dead_code, reason = "some test builds use it")]
    pub(crate) fn stolen(&self) -> &[(u32, u64)] {
        &self.stolen
    }

    fn of(&self, processor: u32) -> Option<u64> {
        let mut all = self.stolen.iter();
        all.find(|(number, _)| *number == processor)
            .map(|(_, ticks)| *ticks)
    }

    /// Returns an upper bound of the nanoseconds stolen since an earlier reading, from one CPU. If the CPU is unknown, it is
    /// the bound of the CPU that lost most.
    fn stolen_since(&self, earlier: &Self, processor: Option<u32>) -> u64 {
        let since = |number| {
            let before = earlier.of(number).unwrap_or_default();
            Some(self.of(number)?.saturating_sub(before))
        };
        let of_any = || self.stolen.iter().filter_map(|(number, _)| since(*number));
        let ticks = processor.and_then(since).or_else(|| of_any().max());
        match ticks.unwrap_or_default() {
            0 => 0,
            ticks => (ticks + 1).saturating_mul(TICK_NANOS),
        }
    }
}

pub(crate) static STOLEN_TIME: StolenTime = StolenTime::new();

/// The recent readings of this process.
pub(crate) struct StolenTime {
    readings: Mutex<Readings>,
}

struct Readings {
    file: Option<File>,
    /// In order, without those that equal the one before.
    kept: Vec<StolenReading>,
    /// The time of the latest reading, as a raw reading of the clock.
    read_at: Option<u64>,
    /// The nanoseconds that it took.
    cost: u64,
}

struct StolenReading {
    /// The latest possible time of the reading, as a raw reading of the clock.
    by: u64,
    counts: CpuCounts,
}

impl StolenTime {
    const fn new() -> Self {
        Self {
            readings: Mutex::new(Readings {
                file: None,
                kept: Vec::new(),
                read_at: None,
                cost: 0,
            }),
        }
    }

    /// Reads the counts, if the last reading is old. Later readings are compared with them.
    ///
    /// The sentinel does not wait for a thread that reads them at the same time.
    pub(crate) fn update(&self, clock: &Clock) {
        let Ok(mut readings) = self.readings.try_lock() else {
            return;
        };
        let interval = READING_INTERVAL_NANOS.max(readings.cost.saturating_mul(MAX_COST_DIVISOR));
        readings.read(clock, interval);
    }

    /// Drops the old readings, after a time without readings.
    pub(crate) fn restart(&self, clock: &Clock) {
        let mut readings = self.lock();
        readings.kept.clear();
        readings.read(clock, 0);
    }

    /// Returns an upper bound of the nanoseconds stolen from a CPU since a raw reading of the clock. If the CPU is unknown, it
    /// is that of any CPU. Returns 0 without readings.
    pub(crate) fn since(&self, clock: &Clock, start: u64, processor: Option<u32>) -> u64 {
        let mut readings = self.lock();
        readings.read(clock, MAX_AGE_NANOS);
        readings.since(start, processor)
    }

    fn lock(&self) -> MutexGuard<'_, Readings> {
        self.readings.lock().ignore_poison()
    }
}

impl Readings {
    fn read(&mut self, clock: &Clock, interval: u64) {
        let at = clock.raw();
        let is_recent = |then: u64| clock.nanos_between(then, at) < interval;
        if self.read_at.is_some_and(is_recent) {
            return;
        }
        if self.file.is_none() {
            self.file = File::open("/proc/stat").ok();
        }
        let counts = self.file.as_ref().and_then(counts);
        let by = clock.raw();
        self.cost = clock.nanos_between(at, by);
        self.read_at = Some(at);
        self.add(by, counts);
    }

    fn add(&mut self, by: u64, counts: Option<CpuCounts>) {
        let Some(counts) =
            counts.filter(|counts| self.kept.last().is_none_or(|last| last.counts != *counts))
        else {
            return;
        };
        if self.kept.len() == MAX_READINGS {
            let mut number = 0;
            self.kept.retain(|_| {
                number += 1;
                number % 2 == 1
            });
        }
        self.kept.push(StolenReading { by, counts });
    }

    fn since(&self, start: u64, processor: Option<u32>) -> u64 {
        let before = self.kept.partition_point(|reading| reading.by <= start);
        let earlier = self.kept.get(before.saturating_sub(1));
        let both = self.kept.last().zip(earlier);
        both.map_or(0, |(now, earlier)| {
            now.counts.stolen_since(&earlier.counts, processor)
        })
    }
}

fn counts(file: &File) -> Option<CpuCounts> {
    let mut text = vec![0; MAX_FILE_BYTES];
    let len = read_from_start(file, &mut text).ok()?;
    let text = String::from_utf8_lossy(text.get(..len)?);
    // The last line may be incomplete.
    parse_counts(text.rsplit_once('\n')?.0)
}

/// Checks that the kernel counts stolen time. The error says why not.
pub(crate) fn is_known() -> Result<(), String> {
    let file = File::open("/proc/stat").map_err(|error| format!("/proc/stat: {error}"))?;
    let counts = counts(&file);
    counts
        .map(drop)
        .ok_or_else(|| "/proc/stat has no stolen time".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "\
cpu  41785 0 22147 64856 2351 0 101 730 0 0
cpu0 20085 0 7986 36762 801 0 24 349 0 0
cpu1 21700 0 14160 28093 1549 0 76 380 0 0
intr 123 0 9
ctxt 42
";

    fn counts(of_two: [u64; 2]) -> CpuCounts {
        let stolen = [0, 1].map(|number| (number, of_two[number as usize]));
        CpuCounts {
            stolen: stolen.into(),
        }
    }

    #[test]
    fn parse_counts_takes_the_eighth_number_of_each_cpu() {
        assert_eq!(parse_counts(STAT), Some(counts([349, 380])));
        for text in [
            "",
            "cpu 1 2 3 4 5 6 7 8",
            "cpu0 1 2 3 4 5 6 7",
            "cpu0 1 2 3 4 5 6 7 x",
        ] {
            assert_eq!(parse_counts(text), None, "{text}");
        }
    }

    /// Tests all times in fractions of a tick. If the count moved, the result is at least the stolen time, and at most two
    /// ticks more.
    #[test]
    fn stolen_since_with_a_moved_count_is_an_upper_bound() {
        const PARTS: u64 = 4;
        for from in 0..5 * PARTS {
            for to in from..8 * PARTS {
                let ticks = |parts: u64| counts([parts / PARTS, 0]);
                let taken = ticks(to).stolen_since(&ticks(from), Some(0));
                let real = (to - from) * (TICK_NANOS / PARTS);
                match to / PARTS > from / PARTS {
                    true => assert!(
                        (real..=real + 2 * TICK_NANOS).contains(&taken),
                        "{from} {to}"
                    ),
                    false => assert_eq!(taken, 0),
                }
            }
        }
    }

    #[test]
    fn stolen_since_of_an_unknown_cpu_is_that_of_the_cpu_that_lost_most() {
        let (before, now) = (counts([10, 10]), counts([12, 15]));
        let stolen = [Some(0), Some(1), Some(7), None];
        let stolen = stolen.map(|processor| now.stolen_since(&before, processor) / TICK_NANOS);
        assert_eq!(stolen, [3, 6, 6, 6]);
    }

    fn kept(added: impl IntoIterator<Item = (u64, u64)>) -> Readings {
        let mut readings = StolenTime::new().readings.into_inner().ignore_poison();
        for (by, ticks) in added {
            readings.add(by, Some(counts([ticks, 0])));
        }
        readings
    }

    #[test]
    fn since_counts_from_the_last_reading_before_the_start() {
        let readings = kept([(100, 1), (200, 1), (300, 4), (400, 5)]);
        assert_eq!(readings.kept.len(), 3, "an unchanged count is not kept");
        let since = |start| readings.since(start, Some(0)) / TICK_NANOS;
        assert_eq!([50, 100, 299, 300, 399, 400].map(since), [5, 5, 5, 2, 2, 0]);
    }

    #[test]
    fn since_with_many_readings_is_an_upper_bound() {
        let added = (0..10 * MAX_READINGS as u64).map(|number| (number * 100, number));
        let readings = kept(added.clone());
        assert!(readings.kept.len() <= MAX_READINGS);
        let last = 10 * MAX_READINGS as u64 - 1;
        for (by, number) in added {
            let real = last - number;
            assert!(readings.since(by, Some(0)) / TICK_NANOS >= real, "{by}");
        }
        assert_eq!(readings.since(last * 100, Some(0)), 0);
    }

    #[cfg(all(target_os = "linux", not(miri)))]
    #[test]
    fn update_reads_the_counts_of_this_kernel() {
        assert_eq!(is_known(), Ok(()));
        let (stolen_time, clock) = (StolenTime::new(), Clock::new());
        stolen_time.update(&clock);
        assert_eq!(stolen_time.lock().kept.len(), 1);
        let start = clock.raw();
        stolen_time.restart(&clock);
        // No more can be stolen than the time between the two readings.
        let stolen = stolen_time.since(&clock, start, None);
        let elapsed = clock.nanos_between(start, clock.raw());
        assert!(stolen <= elapsed + 2 * TICK_NANOS, "{stolen} of {elapsed}");
    }
}

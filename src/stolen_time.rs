//! Floor 1: time that a hypervisor took from the processors of this machine.
//!
//! It is in neither the wait for a processor nor the processor time of a thread, so it looks like blocking.
//! The kernel counts it for each processor, and tells it in ticks of 10 ms. A difference of two such counts
//! may be one tick too small, because both are cut off: where the count moved at all, one tick more is taken
//! for stolen. Where it did not move, nothing is, or on a virtual machine no poll of less than a tick more
//! than its budget would ever be reported.

use std::fs::File;
use std::sync::{Mutex, MutexGuard};

use crate::clock::Clock;
use crate::procfs::read_from_start;
use crate::sync::IgnorePoison as _;

/// Nanoseconds in a tick of `/proc/stat`. `USER_HZ` is 100 on every Linux that Rust compiles for.
const TICK: u64 = 10_000_000;

/// How often the counts are read while polls are in flight, in nanoseconds: as often as the accounts of
/// threads. And at most so often that reading takes no more than one part in this number: the file is longer
/// where there are many processors.
const INTERVAL: u64 = 50_000_000;
const PARTS: u64 = 200;

/// A count that is not older than this, in nanoseconds, is as good as one of now: it is a tenth of a tick.
const FRESH: u64 = TICK / 10;

/// How many readings are kept. If there are more, every second one is forgotten: the older, the fewer.
const KEPT: usize = 64;

/// How much of the beginning of the file is read: enough for 512 processors.
const LONGEST: usize = 64 * 1024;

/// What the kernel has counted so far, in ticks.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    /// By the number of the processor.
    stolen: Vec<(u32, u64)>,
}

/// The lines `cpu0`, `cpu1` … of `/proc/stat`. `None` if they say nothing of stolen time.
pub(crate) fn parse_counts(stat: &str) -> Option<Counts> {
    let stolen: Vec<_> = stat.lines().filter_map(parse_line).collect();
    (!stolen.is_empty()).then_some(Counts { stolen })
}

/// User, nice, system, idle, waiting for disks, two kinds of interrupts; then the stolen.
fn parse_line(line: &str) -> Option<(u32, u64)> {
    let mut words = line.strip_prefix("cpu")?.split(' ');
    let processor = words.next()?.parse().ok()?;
    Some((processor, words.nth(7)?.parse().ok()?))
}

impl Counts {
    #[cfg(any(test, fuzzing))]
    #[allow(dead_code, reason = "where nothing is fuzzed no code asks")]
    pub(crate) fn stolen(&self) -> &[(u32, u64)] {
        &self.stolen
    }

    fn of(&self, processor: u32) -> Option<u64> {
        let mut all = self.stolen.iter();
        all.find(|(number, _)| *number == processor)
            .map(|(_, ticks)| *ticks)
    }

    /// How many nanoseconds may have been stolen since an earlier reading; of one processor, or of the one
    /// that lost most if that is not known.
    fn stolen_since(&self, earlier: &Self, processor: Option<u32>) -> u64 {
        let since = |number| {
            let before = earlier.of(number).unwrap_or_default();
            Some(self.of(number)?.saturating_sub(before))
        };
        let of_any = || self.stolen.iter().filter_map(|(number, _)| since(*number));
        let ticks = processor.and_then(since).or_else(|| of_any().max());
        match ticks.unwrap_or_default() {
            0 => 0,
            ticks => (ticks + 1).saturating_mul(TICK),
        }
    }
}

/// The readings of this process.
pub(crate) static STOLEN_TIME: Steal = Steal::new();

pub(crate) struct Steal {
    book: Mutex<Book>,
}

struct Book {
    file: Option<File>,
    /// In order, and only those that differ from the one before.
    kept: Vec<Reading>,
    /// When the latest was made, and how many nanoseconds it took.
    read_at: Option<u64>,
    cost: u64,
}

struct Reading {
    /// When it was surely made, as a raw reading of the clock.
    by: u64,
    counts: Counts,
}

impl Steal {
    const fn new() -> Self {
        Self {
            book: Mutex::new(Book {
                file: None,
                kept: Vec::new(),
                read_at: None,
                cost: 0,
            }),
        }
    }

    /// Reads the counts if that was not done for a while: they are what later ones are compared with. The
    /// sentinel waits for no thread that reads them at the same time.
    pub(crate) fn look(&self, clock: &Clock) {
        let Ok(mut book) = self.book.try_lock() else {
            return;
        };
        let interval = INTERVAL.max(book.cost.saturating_mul(PARTS));
        book.read(clock, interval);
    }

    /// After a time without a look, nothing is compared with what was before.
    pub(crate) fn begin_anew(&self, clock: &Clock) {
        let mut book = self.lock();
        book.kept.clear();
        book.read(clock, 0);
    }

    /// How many nanoseconds may have been stolen since a raw reading of the clock, from a processor or, if it
    /// is not known, from any. 0 where nothing is known.
    pub(crate) fn since(&self, clock: &Clock, start: u64, processor: Option<u32>) -> u64 {
        let mut book = self.lock();
        book.read(clock, FRESH);
        book.since(start, processor)
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().ignore_poison()
    }
}

impl Book {
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

    fn add(&mut self, by: u64, counts: Option<Counts>) {
        let Some(counts) =
            counts.filter(|counts| self.kept.last().is_none_or(|last| last.counts != *counts))
        else {
            return;
        };
        if self.kept.len() == KEPT {
            let mut number = 0;
            self.kept.retain(|_| {
                number += 1;
                number % 2 == 1
            });
        }
        self.kept.push(Reading { by, counts });
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

fn counts(file: &File) -> Option<Counts> {
    let mut text = vec![0; LONGEST];
    let len = read_from_start(file, &mut text).ok()?;
    let text = String::from_utf8_lossy(text.get(..len)?);
    // The last line may have been cut off.
    parse_counts(text.rsplit_once('\n')?.0)
}

/// Whether the kernel tells it; an error says why not.
pub(crate) fn is_known() -> Result<(), String> {
    let file = File::open("/proc/stat").map_err(|error| format!("/proc/stat: {error}"))?;
    let counts = counts(&file);
    counts
        .map(drop)
        .ok_or_else(|| "/proc/stat says nothing of stolen time".to_owned())
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

    fn counts(of_two: [u64; 2]) -> Counts {
        let stolen = [0, 1].map(|number| (number, of_two[number as usize]));
        Counts {
            stolen: stolen.into(),
        }
    }

    #[test]
    fn the_eighth_figure_of_each_processor_is_what_was_stolen() {
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

    /// Of all times in fractions of a tick: what is taken for stolen is no less than what was, wherever the
    /// count moved, and two ticks more at most.
    #[test]
    fn where_the_count_moved_no_stolen_time_is_left_out() {
        const PARTS: u64 = 4;
        for from in 0..5 * PARTS {
            for to in from..8 * PARTS {
                let ticks = |parts: u64| counts([parts / PARTS, 0]);
                let taken = ticks(to).stolen_since(&ticks(from), Some(0));
                let real = (to - from) * (TICK / PARTS);
                match to / PARTS > from / PARTS {
                    true => assert!((real..=real + 2 * TICK).contains(&taken), "{from} {to}"),
                    false => assert_eq!(taken, 0),
                }
            }
        }
    }

    #[test]
    fn of_a_processor_that_is_not_known_the_one_counts_that_lost_most() {
        let (before, now) = (counts([10, 10]), counts([12, 15]));
        let stolen = [Some(0), Some(1), Some(7), None];
        let stolen = stolen.map(|processor| now.stolen_since(&before, processor) / TICK);
        assert_eq!(stolen, [3, 6, 6, 6]);
    }

    fn book(readings: impl IntoIterator<Item = (u64, u64)>) -> Book {
        let mut book = Steal::new().book.into_inner().ignore_poison();
        for (by, ticks) in readings {
            book.add(by, Some(counts([ticks, 0])));
        }
        book
    }

    #[test]
    fn what_was_stolen_counts_from_the_last_reading_before_the_start() {
        let book = book([(100, 1), (200, 1), (300, 4), (400, 5)]);
        assert_eq!(book.kept.len(), 3, "what has not changed is not kept");
        let since = |start| book.since(start, Some(0)) / TICK;
        assert_eq!([50, 100, 299, 300, 399, 400].map(since), [5, 5, 5, 2, 2, 0]);
    }

    #[test]
    fn of_many_readings_the_oldest_is_kept_and_none_counts_too_little() {
        let readings = (0..10 * KEPT as u64).map(|number| (number * 100, number));
        let book = book(readings.clone());
        assert!(book.kept.len() <= KEPT);
        let last = 10 * KEPT as u64 - 1;
        for (by, number) in readings {
            let real = last - number;
            assert!(book.since(by, Some(0)) / TICK >= real, "{by}");
        }
        assert_eq!(book.since(last * 100, Some(0)), 0);
    }

    #[cfg(all(target_os = "linux", not(miri)))]
    #[test]
    fn the_kernel_of_this_machine_is_understood() {
        assert_eq!(is_known(), Ok(()));
        let (steal, clock) = (Steal::new(), Clock::new());
        steal.look(&clock);
        assert_eq!(steal.lock().kept.len(), 1);
        let start = clock.raw();
        steal.begin_anew(&clock);
        // Whatever was stolen in the meantime was so within it.
        let stolen = steal.since(&clock, start, None);
        let elapsed = clock.nanos_between(start, clock.raw());
        assert!(stolen <= elapsed + 2 * TICK, "{stolen} of {elapsed}");
    }
}

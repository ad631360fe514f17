//! Estimates the durations of polls that a thread counts and does not time.
//!
//! The thread times about one poll in 64 exactly. This *sample* stands for the polls after it, until the next sample.
//! Their number is random, so a periodic program does not bias the estimate. The number of polls itself is exact.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::Totals;
use crate::histogram::{CELLS, cell_of};
use crate::sync::{AtomicU64, add_single_writer, fence, thread};

/// The largest number of polls after a sample for which it stands. The mean is 63, so one poll in 64 is a sample. The
/// first samples stand for fewer, because the very first poll is rarely typical.
const MAX_POLLS_PER_SAMPLE: u64 = 125;

/// The cells of the histogram, rounded up to mask an index. A model has two.
const ROOM: usize = if cfg!(shotclock_loom) {
    2
} else {
    CELLS.next_power_of_two()
};

/// The attempts of a reader, while the owner writes for some nanoseconds.
const MAX_TRIES: u32 = 10_000;

/// The counters of one thread. Only the owner of its slot writes them.
pub(crate) struct Sampled {
    /// Untimed polls, by the cell of the sample that stands for them.
    histogram: [AtomicU64; ROOM],
    /// Odd while the owner replaces the sample.
    version: AtomicU64,
    /// The sample: its cell, its nanoseconds, and these without the watched polls inside.
    cell: AtomicU64,
    elapsed: AtomicU64,
    self_time: AtomicU64,
    /// The polls in its cell when it was taken, and when the next sample is due.
    base: AtomicU64,
    due: AtomicU64,
    /// The nanoseconds of the polls for which earlier samples stood.
    total: AtomicU64,
    busy: AtomicU64,
    /// The number of samples.
    samples: AtomicU64,
    random: AtomicU64,
}

impl Sampled {
    /// Makes counters whose first sample is due at once. Threads differ in `seed`, so their samples do not coincide.
    pub(crate) fn new(seed: u64) -> Self {
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        let zero = || AtomicU64::new(0);
        Self {
            histogram: std::array::from_fn(|_| zero()),
            version: zero(),
            cell: zero(),
            elapsed: zero(),
            self_time: zero(),
            base: zero(),
            due: zero(),
            total: zero(),
            busy: zero(),
            samples: zero(),
            random: AtomicU64::new((seed + 1).wrapping_mul(SPREAD) | 1),
        }
    }

    /// Returns whether to time the next poll.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.counted().load(Relaxed) >= self.due.load(Relaxed)
    }

    /// Counts a poll that was not timed. Owner only.
    #[inline]
    pub(crate) fn count(&self) {
        add_single_writer(self.counted(), 1);
    }

    /// Returns the nanoseconds that an untimed poll counts for.
    #[inline]
    pub(crate) fn elapsed(&self) -> u64 {
        self.elapsed.load(Relaxed)
    }

    #[inline]
    fn counted(&self) -> &AtomicU64 {
        // The index is always in range. A mask is cheaper than a bounds check.
        &self.histogram[self.cell.load(Relaxed) as usize % ROOM]
    }

    /// Replaces the sample by a poll that was just timed. Owner only.
    pub(crate) fn renew(&self, elapsed: u64, self_time: u64) {
        let samples = self.samples.load(Relaxed) + 1;
        let gap = 1 + self.draw() % MAX_POLLS_PER_SAMPLE.min(2 * samples);
        self.samples.store(samples, Relaxed);
        let cell = cell_of(elapsed);
        let (total, busy) = self.pending();
        let exchanging = self.version.load(Relaxed) + 1;
        self.version.store(exchanging, Relaxed); // model: renew-odd
        fence(Release); // model: renew-fence
        add_single_writer(&self.total, total);
        add_single_writer(&self.busy, busy);
        self.cell.store(cell as u64, Relaxed);
        self.elapsed.store(elapsed, Relaxed);
        self.self_time.store(self_time, Relaxed);
        let base = self.histogram[cell].load(Relaxed);
        self.base.store(base, Relaxed);
        self.due.store(base + gap, Relaxed);
        self.version.store(exchanging + 1, Release); // model: renew-done
    }

    /// Returns the total and busy nanoseconds of the polls for which the present sample stands.
    fn pending(&self) -> (u64, u64) {
        let polls = self.counted().load(Relaxed);
        let polls = polls.wrapping_sub(self.base.load(Relaxed));
        (
            polls.wrapping_mul(self.elapsed.load(Relaxed)),
            polls.wrapping_mul(self.self_time.load(Relaxed)),
        )
    }

    /// Draws a random number that is never 0, by Marsaglia's xorshift.
    fn draw(&self) -> u64 {
        let mut x = self.random.load(Relaxed);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.store(x, Relaxed);
        x
    }

    /// Adds the counts. Any thread may call it. What it adds never decreases.
    pub(super) fn add_to(&self, totals: &mut Totals) {
        let cells = totals.distribution.cells.iter_mut();
        for (sum, cell) in cells.zip(&self.histogram) {
            *sum += cell.load(Relaxed);
        }
        let (total, busy) = self.sums();
        totals.add_time(total, busy);
    }

    fn sums(&self) -> (u64, u64) {
        for _ in 0..MAX_TRIES {
            if let Some(sums) = self.try_sums() {
                return sums;
            }
            thread::yield_now();
        }
        // The owner was stopped during the replacement, and may never continue.
        self.sums_at_once()
    }

    /// Returns `None` while the owner replaces the sample.
    pub(crate) fn try_sums(&self) -> Option<(u64, u64)> {
        let version = self.version.load(Acquire); // model: sums-version
        let sums = self.sums_at_once();
        fence(Acquire); // model: sums-fence
        let is_even = version.is_multiple_of(2);
        let is_of_one_moment = self.version.load(Relaxed) == version; // model: sums-again
        (is_even && is_of_one_moment).then_some(sums)
    }

    fn sums_at_once(&self) -> (u64, u64) {
        let (total, busy) = self.pending();
        (
            self.total.load(Relaxed).wrapping_add(total),
            self.busy.load(Relaxed).wrapping_add(busy),
        )
    }
}

#[cfg(all(test, not(shotclock_loom)))]
mod tests {
    use super::*;

    fn totals(sampled: &Sampled) -> Totals {
        let mut totals = Totals::default();
        sampled.add_to(&mut totals);
        totals
    }

    #[test]
    fn sample_stands_for_the_polls_after_it() {
        let sampled = Sampled::new(0);
        assert!(sampled.is_due());
        sampled.renew(1_000, 700);
        assert_eq!(sampled.elapsed(), 1_000);
        assert!(!sampled.is_due());
        sampled.count();
        assert_eq!(
            (totals(&sampled).total, totals(&sampled).busy),
            (1_000, 700)
        );
        sampled.renew(50, 50);
        sampled.count();
        let totals = totals(&sampled);
        assert_eq!((totals.total, totals.busy), (1_050, 750));
        assert_eq!(totals.distribution.count(), 2);
        assert_eq!(totals.distribution.cells[cell_of(1_000)], 1);
    }

    /// Returns the smallest and the largest number of polls for which a sample stands, after `before` earlier samples.
    fn stands_for(before: usize) -> (usize, usize) {
        let gaps = (0..2_000).map(|seed| {
            let sampled = Sampled::new(seed);
            (0..=before).for_each(|_| sampled.renew(100, 100));
            (0..)
                .take_while(|_| !sampled.is_due())
                .map(|_| sampled.count())
                .count()
        });
        gaps.fold((usize::MAX, 0), |(least, most), gap| {
            (least.min(gap), most.max(gap))
        })
    }

    #[test]
    fn first_samples_stand_for_fewer_polls_and_for_one_at_least() {
        let found = [0, 1, 9, 61, 62, 99].map(stands_for);
        assert_eq!(
            found,
            [(1, 2), (1, 4), (1, 20), (1, 124), (1, 125), (1, 125)]
        );
    }

    /// The first numbers that follow 1, by the shifts of Marsaglia's paper (13, 7, 17).
    #[test]
    fn draw_follows_the_published_sequence() {
        let sampled = Sampled::new(0);
        sampled.random.store(1, Relaxed);
        let drawn = [sampled.draw(), sampled.draw()];
        assert_eq!(drawn, [1_082_269_761, 1_152_992_998_833_853_505]);
    }

    #[test]
    fn is_due_times_one_poll_in_64() {
        let sampled = Sampled::new(7);
        let (mut timed, polls) = (0, 640_000);
        for _ in 0..polls {
            if sampled.is_due() {
                timed += 1;
                sampled.renew(100, 100);
            } else {
                sampled.count();
            }
        }
        assert_eq!(totals(&sampled).distribution.count() + timed, polls);
        // Ten standard deviations.
        assert!(timed.abs_diff(10_000) < 800, "{timed}");
    }

    /// A program with one long poll in 64 would bias a sample at every 64th poll.
    #[test]
    fn estimate_of_a_periodic_program_has_no_bias() {
        let sampled = Sampled::new(3);
        let (mut timed, mut exact) = (0, 0);
        let polls = 6_400_000;
        for poll in 0..polls {
            let elapsed = if poll % 64 == 0 { 64_000 } else { 500 };
            exact += elapsed;
            if sampled.is_due() {
                timed += elapsed;
                sampled.renew(elapsed, elapsed);
            } else {
                sampled.count();
            }
        }
        let estimate = totals(&sampled).total + timed;
        let error = estimate.abs_diff(exact) as f64 / exact as f64;
        // About 1,562 of 100,000 samples are long polls: a relative deviation of 0.025 · 0.7.
        assert!(error < 0.12, "{error}");
    }

    #[test]
    fn sums_read_during_counting_never_decrease() {
        let sampled = Sampled::new(1);
        std::thread::scope(|scope| {
            let owner = scope.spawn(|| {
                for poll in 0..300_000u64 {
                    match sampled.is_due() {
                        true => sampled.renew(poll % 1_000 * 1_000, 1),
                        false => sampled.count(),
                    }
                }
            });
            let mut before = (0, 0);
            while !owner.is_finished() {
                let now = sampled.sums();
                assert!(now.0 >= before.0 && now.1 >= before.1, "{now:?} {before:?}");
                before = now;
            }
        });
    }
}

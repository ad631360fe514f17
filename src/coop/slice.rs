//! Decides by time when a pace is due, with few readings of the clock.
//!
//! Inside a watched future, the time is the age of the outermost watched poll in flight, from the thread's slot. A yield
//! in one branch of a task does not end the poll while another branch continues, so its own time would be too short.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::rule::sealed::Rule;
use crate::clock::nanos_of;
use crate::slice_ticker;
use crate::slot;
use crate::watch::watchdog_of;

/// The readings of the clock in a slice: enough to correct the estimate, and few enough to cost little.
const READINGS_PER_SLICE: u64 = 4;

/// The most ticks between two checks, so that one step of the slice ticker exceeds any count.
const MAX_TICKS: u64 = slice_ticker::STEP / 2;
const _: () = assert!(MAX_TICKS < slice_ticker::STEP);

/// The part of a slice, as a divisor, that is left for the return from the poll.
const RETURN_DIVISOR: u64 = 16;

/// A younger poll has only come to this pace. Siblings have not used it up. 50 µs are more than nested futures need for
/// that.
const MIN_SIBLING_NANOS: u64 = 50_000;

/// If siblings always use up the slice, a pace still makes an iteration after this number of turns, or up to twice as
/// many.
const MIN_TURNS: u32 = 32;

/// Makes a pace due after a time. [`yield_after`](crate::yield_after()) uses it.
// All times are nanoseconds.
#[derive(Clone, Debug)]
pub struct Slice {
    /// The slice, without the time for the return from the poll.
    limit: u64,
    /// The begin of the time outside a watched future: the first check, or the last yield.
    since: Option<Instant>,
    /// The previous reading, unless the task has yielded since.
    before: Option<SliceReading>,
    /// The last measurement: ticks, and their nanoseconds.
    pace: (u64, u64),
    /// A poll that a yield did not end, because code inside it polls the yielding future itself. Its age is no measure.
    endless: Option<Poll>,
    /// The poll of the last yield.
    left: Option<Poll>,
    /// The consecutive turns without an iteration, and their limit.
    skipped_turns: u32,
    max_skipped_turns: u32,
}

/// One poll of the process: the index of its thread's slot, and its sequence number there.
type Poll = (usize, u64);

/// The time that the task has run.
#[derive(Clone, Copy, Debug)]
struct SliceReading {
    /// The outermost watched poll. `None` if the time is that of the pace itself.
    poll: Option<Poll>,
    elapsed: u64,
}

impl Slice {
    pub(super) fn new(slice: Duration) -> Self {
        // Paces differ, so siblings that began together do not all make their iteration in one turn.
        static NEXT_TURNS: AtomicU32 = AtomicU32::new(0);
        let slice = nanos_of(slice);
        Self {
            limit: slice - slice / RETURN_DIVISOR,
            since: None,
            before: None,
            pace: (1, 1),
            endless: None,
            left: None,
            skipped_turns: 0,
            max_skipped_turns: MIN_TURNS + NEXT_TURNS.fetch_add(1, Relaxed) % MIN_TURNS,
        }
    }

    fn read(&mut self) -> SliceReading {
        let watched = outermost().filter(|(poll, _)| self.endless != Some(*poll));
        match watched {
            Some((poll, elapsed)) => SliceReading {
                poll: Some(poll),
                elapsed,
            },
            None => SliceReading {
                poll: None,
                elapsed: nanos_since(*self.since.get_or_insert_with(Instant::now)),
            },
        }
    }

    /// Returns the ticks until the next check. `None` if the slice is used up.
    fn ticks_left(&mut self, now: SliceReading) -> Option<u64> {
        let rest = self
            .limit
            .checked_sub(now.elapsed)
            .filter(|rest| *rest > 0)?;
        slice_ticker::request(self.limit);
        let until_check = u128::from(rest.min(self.limit / READINGS_PER_SLICE));
        let (ticks, nanos) = self.pace;
        let fit = until_check * u128::from(ticks) / u128::from(nanos.max(1));
        // At most twice as many as before, because one fast iteration says little about the next ones.
        let most = ticks.saturating_mul(2);
        self.before = Some(now);
        Some(
            u64::try_from(fit)
                .unwrap_or(u64::MAX)
                .clamp(1, most.min(MAX_TICKS)),
        )
    }
}

impl Rule for Slice {
    #[inline]
    fn floor() -> u64 {
        slice_ticker::count()
    }

    fn check(&mut self, ticks: u64) -> Option<u64> {
        let now = self.read();
        match self.before {
            Some(before) if before.poll == now.poll => {
                self.pace = (ticks, now.elapsed.saturating_sub(before.elapsed));
            }
            // Another poll has begun since, so the two readings measure nothing.
            Some(_) => {}
            // At the first tick, the whole time is an upper bound.
            None => self.pace = (ticks, now.elapsed),
        }
        self.ticks_left(now)
    }

    fn resume(&mut self) -> Option<u64> {
        self.since = Some(Instant::now());
        if self.left.is_some() && self.left == outermost().map(|(poll, _)| poll) {
            self.endless = self.left;
        }
        let now = self.read();
        let is_of_siblings = now.poll.is_some() && now.elapsed >= MIN_SIBLING_NANOS;
        let is_used_up = is_of_siblings && now.elapsed >= self.limit;
        if is_used_up && self.skipped_turns < self.max_skipped_turns {
            self.skipped_turns += 1;
            return None;
        }
        self.skipped_turns = 0;
        // At least one iteration, whatever the time.
        self.ticks_left(now).or(Some(1))
    }

    fn leave(&mut self) {
        self.before = None;
        self.left = outermost().map(|(poll, _)| poll);
    }
}

fn nanos_since(moment: Instant) -> u64 {
    nanos_of(moment.elapsed())
}

/// Returns the outermost watched poll in flight on this thread, and its age in nanoseconds.
fn outermost() -> Option<(Poll, u64)> {
    let slot = slot::current()?;
    let now = |watch| Some(watchdog_of(watch)?.clock.raw());
    let outermost = slot.outermost_poll(now)?;
    let watchdog = watchdog_of(outermost.watch)?;
    let clock = &watchdog.clock;
    let elapsed = clock.nanos_between(outermost.start, clock.raw());
    Some(((slot.index(), outermost.seq), elapsed))
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;
    use crate::WatchExt as _;
    use crate::tests::{Scene, poll_once};

    /// Makes a slice of 16 µs, of which one is for the return.
    fn slice() -> Slice {
        Slice::new(Duration::from_micros(16))
    }

    const LIMIT: u64 = 15_000;

    fn reading(poll: Option<Poll>, elapsed: u64) -> SliceReading {
        SliceReading { poll, elapsed }
    }

    fn fitting(pace: (u64, u64), elapsed: u64) -> Option<u64> {
        let slice = Slice { pace, ..slice() };
        slice.clone().ticks_left(reading(None, elapsed))
    }

    #[test]
    fn ticks_left_fit_into_a_quarter_of_the_slice_or_into_its_rest() {
        // One tick in a nanosecond, two, and one half.
        assert_eq!(fitting((4_000, 4_000), 0), Some(LIMIT / READINGS_PER_SLICE));
        assert_eq!(
            fitting((8_000, 4_000), 0),
            Some(2 * LIMIT / READINGS_PER_SLICE)
        );
        assert_eq!(
            fitting((4_000, 8_000), 0),
            Some(LIMIT / READINGS_PER_SLICE / 2)
        );
        assert_eq!(fitting((4_000, 4_000), LIMIT - 100), Some(100));
        // At most twice as many as before, and at least one.
        assert_eq!(fitting((7, 1), 0), Some(14));
        assert_eq!(fitting((1, 1_000_000), 0), Some(1));
        assert_eq!(fitting((1, 0), 0), Some(2));
        // Fewer than a step of the slice ticker.
        assert_eq!(fitting((u64::MAX, 1), 0), Some(MAX_TICKS));
        assert_eq!(fitting((4_000, 4_000), LIMIT - 1), Some(1));
        assert_eq!(fitting((4_000, 4_000), LIMIT), None);
        assert_eq!(fitting((4_000, 4_000), LIMIT + 1), None);
    }

    /// Returns the measurement of a check after 1,000 ticks, with a previous reading.
    fn measured(before: Option<SliceReading>) -> (u64, u64) {
        let mut slice = Slice {
            before,
            pace: (3, 5),
            since: Instant::now().checked_sub(Duration::from_secs(100)),
            ..slice()
        };
        slice.check(1_000);
        slice.pace
    }

    #[test]
    fn check_measures_ticks_within_one_poll() {
        let since_then = measured(Some(reading(None, 99_000_000_000)));
        let of_all = measured(None);
        assert_eq!((since_then.0, of_all.0), (1_000, 1_000));
        assert!(
            since_then.1 + 99_000_000_000 >= of_all.1,
            "{since_then:?} {of_all:?}"
        );
        assert!(since_then.1 < of_all.1, "{since_then:?} {of_all:?}");
        assert!(of_all.1 >= 100_000_000_000, "{of_all:?}");
        let of_another_poll = measured(Some(reading(Some((7, 7)), 0)));
        assert_eq!(of_another_poll, (3, 5));
    }

    /// Runs in a watched poll under a mocked clock.
    fn in_a_poll(run: impl FnOnce(&Scene)) {
        let scene = Scene::new();
        let watch = scene.watch("paced");
        let poll = pin!(async { run(&scene) }.watched(&watch));
        assert!(poll_once(poll).is_ready());
    }

    #[test]
    fn resume_in_a_poll_that_did_not_end_ignores_its_age() {
        let endless = Some((7, 7));
        let mut slice = Slice { endless, ..slice() };
        assert!(slice.resume().is_some());
        assert_eq!(slice.endless, endless);
        slice.left = Some((8, 8));
        assert!(slice.resume().is_some());
        assert_eq!(slice.endless, endless);
        in_a_poll(|_| {
            slice.leave();
            assert!(slice.resume().is_some());
        });
        assert_eq!(slice.endless, slice.left);
        assert_ne!(slice.endless, endless);
    }

    #[test]
    fn resume_of_a_used_up_slice_skips_a_bounded_number_of_turns() {
        in_a_poll(|scene| {
            let mut slice = Slice::new(Duration::from_micros(160));
            scene.pass(Duration::from_nanos(slice.limit));
            let max_skipped = slice.max_skipped_turns as usize;
            let mut skipped = || (0..1_000).take_while(|_| slice.resume().is_none()).count();
            let first = skipped();
            assert_eq!(first, max_skipped);
            assert!((32..64).contains(&first));
            // It has made its iteration, and skips turns again.
            assert_eq!(skipped(), first);
        });
    }

    #[test]
    fn resume_in_a_young_poll_makes_an_iteration() {
        in_a_poll(|scene| {
            scene.pass(Duration::from_nanos(MIN_SIBLING_NANOS - 1));
            assert_eq!(slice().resume(), Some(1));
            scene.pass(Duration::from_nanos(1));
            assert_eq!(slice().resume(), None);
        });
    }
}

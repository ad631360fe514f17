//! When a pace that goes by time is due, and how seldom it can be asked.
//!
//! Inside a watched future the time is that of the outermost watched poll in flight, which the
//! thread's slot knows: a yield in one branch of a task gives nothing back while another branch runs
//! on.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::rule::sealed::Rule;
use crate::clock::nanos_of;
use crate::slice_ticker;
use crate::slot;
use crate::watch::watchdog_of;

/// The clock is read about so often in a slice.
const READINGS: u64 = 4;

/// More ticks are not counted between two looks, so that a beat is farther than any count.
const MOST: u64 = slice_ticker::STEP / 2;
const _: () = assert!(MOST < slice_ticker::STEP);

/// A slice is used up a sixteenth of it early: the rest is spent on the way out.
const EARLY: u64 = 16;

/// Less than this before its turn comes is the way in, and not the work of others: 50 µs.
const WAY_IN: u64 = 50_000;

/// A pace whose slice is used up by others whenever its turn comes makes an iteration all the same
/// once in so many turns, and up to twice as many.
const TURNS: u32 = 32;

/// By time: what [`yield_after`](crate::yield_after()) goes by.
// All times are nanoseconds.
#[derive(Clone, Debug)]
pub struct Slice {
    /// The slice, less what is spent on the way out.
    limit: u64,
    /// Where time counts from outside of a watched future: the first look, or the last yield.
    since: Option<Instant>,
    /// The reading before, unless the worker was given back since.
    before: Option<Reading>,
    /// So many ticks took so long when it was measured last.
    pace: (u64, u64),
    /// The poll that a yield did not end: something inside it polls by itself. Its age says nothing.
    endless: Option<Poll>,
    /// The poll in which the worker was given back.
    left: Option<Poll>,
    /// How many turns have been passed on one after the other, and at how many it has had enough.
    passed_on: u32,
    patience: u32,
}

/// One poll of the process: the slot of its thread, and its number there.
type Poll = (usize, u64);

/// How long the worker was had already.
#[derive(Clone, Copy, Debug)]
struct Reading {
    /// The outermost watched poll, or `None` where the time is the pace's own.
    poll: Option<Poll>,
    elapsed: u64,
}

impl Slice {
    pub(super) fn new(slice: Duration) -> Self {
        // Another number for each, so that siblings which began together do not lose their patience
        // together.
        static PATIENCE: AtomicU32 = AtomicU32::new(0);
        let slice = nanos_of(slice);
        Self {
            limit: slice - slice / EARLY,
            since: None,
            before: None,
            pace: (1, 1),
            endless: None,
            left: None,
            passed_on: 0,
            patience: TURNS + PATIENCE.fetch_add(1, Relaxed) % TURNS,
        }
    }

    fn read(&mut self) -> Reading {
        let watched = outermost().filter(|(poll, _)| self.endless != Some(*poll));
        match watched {
            Some((poll, elapsed)) => Reading {
                poll: Some(poll),
                elapsed,
            },
            None => Reading {
                poll: None,
                elapsed: nanos_since(*self.since.get_or_insert_with(Instant::now)),
            },
        }
    }

    fn go_on(&mut self, now: Reading) -> Option<u64> {
        let rest = self
            .limit
            .checked_sub(now.elapsed)
            .filter(|rest| *rest > 0)?;
        slice_ticker::request(self.limit);
        let stretch = u128::from(rest.min(self.limit / READINGS));
        let (ticks, nanos) = self.pace;
        let fit = stretch * u128::from(ticks) / u128::from(nanos.max(1));
        // Never more than twice as many as before: one quick iteration promises nothing.
        let most = ticks.saturating_mul(2);
        self.before = Some(now);
        Some(
            u64::try_from(fit)
                .unwrap_or(u64::MAX)
                .clamp(1, most.min(MOST)),
        )
    }
}

impl Rule for Slice {
    #[inline]
    fn floor() -> u64 {
        slice_ticker::count()
    }

    fn look(&mut self, ticks: u64) -> Option<u64> {
        let now = self.read();
        match self.before {
            Some(before) if before.poll == now.poll => {
                self.pace = (ticks, now.elapsed.saturating_sub(before.elapsed));
            }
            // Another poll has begun since: nothing was measured.
            Some(_) => {}
            // The first tick of all. It took no longer than that.
            None => self.pace = (ticks, now.elapsed),
        }
        self.go_on(now)
    }

    fn resume(&mut self) -> Option<u64> {
        self.since = Some(Instant::now());
        if self.left.is_some() && self.left == outermost().map(|(poll, _)| poll) {
            self.endless = self.left;
        }
        let now = self.read();
        let is_theirs = now.poll.is_some() && now.elapsed >= WAY_IN;
        if is_theirs && now.elapsed >= self.limit && self.passed_on < self.patience {
            self.passed_on += 1;
            return None;
        }
        self.passed_on = 0;
        // At least one iteration, whatever the time.
        self.go_on(now).or(Some(1))
    }

    fn leave(&mut self) {
        self.before = None;
        self.left = outermost().map(|(poll, _)| poll);
    }
}

fn nanos_since(moment: Instant) -> u64 {
    nanos_of(moment.elapsed())
}

/// The outermost watched poll in flight on this thread, and its age.
fn outermost() -> Option<(Poll, u64)> {
    let slot = slot::current()?;
    let now = |watch| Some(watchdog_of(watch)?.clock.raw());
    let outermost = slot.outermost_poll(now)?;
    let home = watchdog_of(outermost.watch)?;
    let elapsed = home.clock.nanos_between(outermost.start, home.clock.raw());
    Some(((slot.index(), outermost.seq), elapsed))
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;
    use crate::WatchExt as _;
    use crate::tests::{Scene, poll_once};

    /// Of 16 µs, of which one is for the way out.
    fn slice() -> Slice {
        Slice::new(Duration::from_micros(16))
    }

    const LIMIT: u64 = 15_000;

    fn reading(poll: Option<Poll>, elapsed: u64) -> Reading {
        Reading { poll, elapsed }
    }

    fn fitting(pace: (u64, u64), elapsed: u64) -> Option<u64> {
        let slice = Slice { pace, ..slice() };
        slice.clone().go_on(reading(None, elapsed))
    }

    #[test]
    fn as_many_ticks_as_fit_into_a_quarter_of_the_slice_or_into_its_rest() {
        // A tick a nanosecond, and two, and one in two.
        assert_eq!(fitting((4_000, 4_000), 0), Some(LIMIT / READINGS));
        assert_eq!(fitting((8_000, 4_000), 0), Some(2 * LIMIT / READINGS));
        assert_eq!(fitting((4_000, 8_000), 0), Some(LIMIT / READINGS / 2));
        assert_eq!(fitting((4_000, 4_000), LIMIT - 100), Some(100));
        // Twice as many as before at most, and one at least.
        assert_eq!(fitting((7, 1), 0), Some(14));
        assert_eq!(fitting((1, 1_000_000), 0), Some(1));
        assert_eq!(fitting((1, 0), 0), Some(2));
        // And fewer than a beat.
        assert_eq!(fitting((u64::MAX, 1), 0), Some(MOST));
        assert_eq!(fitting((4_000, 4_000), LIMIT - 1), Some(1));
        assert_eq!(fitting((4_000, 4_000), LIMIT), None);
        assert_eq!(fitting((4_000, 4_000), LIMIT + 1), None);
    }

    /// What a look measured of so many ticks, after such a reading.
    fn measured(before: Option<Reading>) -> (u64, u64) {
        let mut slice = Slice {
            before,
            pace: (3, 5),
            since: Instant::now().checked_sub(Duration::from_secs(100)),
            ..slice()
        };
        slice.look(1_000);
        slice.pace
    }

    #[test]
    fn ticks_are_measured_within_one_poll() {
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

    /// In a watched poll under a clock that stands still.
    fn in_a_poll(run: impl FnOnce(&Scene)) {
        let scene = Scene::new();
        let watch = scene.watch("paced");
        let poll = pin!(async { run(&scene) }.watched(&watch));
        assert!(poll_once(poll).is_ready());
    }

    #[test]
    fn a_poll_that_a_yield_did_not_end_is_remembered_until_another_is_left() {
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
    fn a_turn_is_passed_on_while_others_have_used_it_up_and_patience_lasts() {
        in_a_poll(|scene| {
            let mut slice = Slice::new(Duration::from_micros(160));
            scene.pass(Duration::from_nanos(slice.limit));
            let patience = slice.patience as usize;
            let mut passed_on = || (0..1_000).take_while(|_| slice.resume().is_none()).count();
            let first = passed_on();
            assert_eq!(first, patience);
            assert!((32..64).contains(&first));
            // It has had its turn, and is patient again.
            assert_eq!(passed_on(), first);
        });
    }

    #[test]
    fn the_way_in_is_not_the_work_of_others() {
        in_a_poll(|scene| {
            scene.pass(Duration::from_nanos(WAY_IN - 1));
            assert_eq!(slice().resume(), Some(1));
            scene.pass(Duration::from_nanos(1));
            assert_eq!(slice().resume(), None);
        });
    }
}

//! When a pace that goes by time is due, and how seldom it can be asked.
//!
//! Inside a watched future the time is that of the outermost watched poll in flight, which the
//! thread's slot knows: a yield in one branch of a task gives nothing back while another branch runs
//! on.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::rule::sealed::Rule;
use crate::clock::nanos_of;
use crate::pulse;
use crate::slot;
use crate::watch::home_of;

/// The clock is read about so often in a slice.
const READINGS: u64 = 4;

/// More ticks are not counted between two looks, so that a beat is farther than any count.
const MOST: u64 = pulse::STEP / 2;

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
        pulse::want(self.limit);
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
        pulse::beat()
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
    let now = |watch| Some(home_of(watch)?.clock.raw());
    let outermost = slot.outermost_poll(now)?;
    let home = home_of(outermost.watch)?;
    let elapsed = home.clock.nanos_between(outermost.start, home.clock.raw());
    Some(((slot.index(), outermost.opening), elapsed))
}

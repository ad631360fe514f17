//! Pseudo-random numbers by SplitMix64: the same seed gives the same numbers.

use std::time::Duration;

pub(crate) struct Random(u64);

impl Random {
    /// Makes a generator. `stream` separates the generators of one seed.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        Self(seed.wrapping_mul(0xD134_2543_DE82_EF95) ^ stream.wrapping_mul(0xA076_1D64_78BD_642F))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number from 0 to `end`, exclusive.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn one_of<'t, T>(&mut self, things: &'t [T]) -> &'t T {
        &things[self.below(things.len() as u64) as usize]
    }

    /// Returns a number from 0 to twice the mean, evenly distributed.
    pub(crate) fn time(&mut self, mean: Duration) -> Duration {
        Duration::from_micros(self.below(2 * mean.as_micros() as u64 + 1))
    }
}

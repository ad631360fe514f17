//! Numbers that look random, and are the same for the same seed: SplitMix64.

use std::time::Duration;

pub(crate) struct Random(u64);

impl Random {
    /// `stream` tells apart those who draw under one seed.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        Self(seed.wrapping_mul(0xD134_2543_DE82_EF95) ^ stream.wrapping_mul(0xA076_1D64_78BD_642F))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to, and without, `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn one_of<'t, T>(&mut self, things: &'t [T]) -> &'t T {
        &things[self.below(things.len() as u64) as usize]
    }

    /// With an even chance from nothing to twice the mean.
    pub(crate) fn time(&mut self, mean: Duration) -> Duration {
        Duration::from_micros(self.below(2 * mean.as_micros() as u64 + 1))
    }
}

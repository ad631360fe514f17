//! What was measured round by round, and its medians.

use std::time::Duration;

/// The figures of a contest: for every contender one in each round.
pub struct Rounds {
    contenders: Vec<(&'static str, Vec<f64>)>,
    units: u64,
}

impl Rounds {
    pub(crate) fn new(names: impl Iterator<Item = &'static str>, units: u64) -> Self {
        Self {
            contenders: names.map(|name| (name, Vec::new())).collect(),
            units,
        }
    }

    pub(crate) fn add(&mut self, contender: usize, taken: Duration) {
        let nanos = taken.as_nanos() as f64 / self.units as f64;
        self.contenders[contender].1.push(nanos);
    }

    /// Nanoseconds per unit.
    pub fn nanos(&self, name: &str) -> f64 {
        median(self.of(name).to_vec())
    }

    /// By how many nanoseconds per unit the one is above the other.
    pub fn difference(&self, name: &str, other: &str) -> f64 {
        self.compare(name, other, |one, other| one - other)
    }

    /// How many times the other the one is.
    pub fn ratio(&self, name: &str, other: &str) -> f64 {
        self.compare(name, other, |one, other| one / other)
    }

    fn compare(&self, name: &str, other: &str, with: fn(f64, f64) -> f64) -> f64 {
        let pairs = self.of(name).iter().zip(self.of(other));
        median(pairs.map(|(one, other)| with(*one, *other)).collect())
    }

    fn of(&self, name: &str) -> &[f64] {
        let found = self.contenders.iter().find(|(its, _)| *its == name);
        &found.expect("a goal names contenders of its contest").1
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

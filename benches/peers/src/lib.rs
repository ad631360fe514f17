//! What the benches of `shotclock` share: a contest of several ways to do the same.
//!
//! Each contest is measured twice. Criterion measures one contender after the other, which is what
//! the field knows how to read. On a machine that others use too, the ratio of two such figures
//! drifts with the minute in which each was taken. So a table follows, for which each contender runs a short batch
//! in each round, in rotating order. It compares only figures of the same round.
//!
//! `SHOTCLOCK_BENCH=criterion` or `SHOTCLOCK_BENCH=ratios` chooses one of the two.

mod fresh;
mod rounds;

use std::time::Duration;

use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, measurement::WallTime};

pub use fresh::{in_a_fresh_process, subject};
pub use rounds::Rounds;

/// How many times each contender runs for the table. Odd, so that the median is a measured value.
const ROUNDS: usize = 101;

/// Several ways to do the same; the first that is added is the baseline.
pub struct Contest<'a> {
    title: &'static str,
    unit: &'static str,
    units_per_turn: u64,
    turns_per_round: u64,
    contenders: Vec<Contender<'a>>,
    goals: Vec<Goal>,
}

/// Makes a number of turns, and returns their duration.
type Run<'a> = Box<dyn FnMut(u64) -> Duration + 'a>;

struct Contender<'a> {
    name: &'static str,
    run: Run<'a>,
}

struct Goal {
    text: &'static str,
    limit: f64,
    measure: fn(&Rounds) -> f64,
}

impl<'a> Contest<'a> {
    /// Makes a contest. Its figures are for one `unit`, of which a turn has `units_per_turn`.
    ///
    /// A turn is criterion's iteration; the table takes `turns_per_round` of them as one batch.
    pub fn new(
        title: &'static str,
        unit: &'static str,
        units_per_turn: u64,
        turns_per_round: u64,
    ) -> Self {
        Self {
            title,
            unit,
            units_per_turn,
            turns_per_round,
            contenders: Vec::new(),
            goals: Vec::new(),
        }
    }

    /// Adds a contender. `run` makes a number of turns, and returns their duration.
    #[must_use]
    pub fn contender(mut self, name: &'static str, run: impl FnMut(u64) -> Duration + 'a) -> Self {
        let run = Box::new(run);
        self.contenders.push(Contender { name, run });
        self
    }

    /// Adds a goal: `measure` should be at most `limit`.
    #[must_use]
    pub fn goal(mut self, text: &'static str, limit: f64, measure: fn(&Rounds) -> f64) -> Self {
        self.goals.push(Goal {
            text,
            limit,
            measure,
        });
        self
    }

    /// Measures, and prints. A goal that is missed is printed and fails nothing: on a shared
    /// machine that would be a coin toss.
    pub fn run(mut self) {
        let chosen = std::env::var("SHOTCLOCK_BENCH").unwrap_or_default();
        if chosen != "ratios" {
            self.measure_with_criterion();
        }
        if chosen != "criterion" && is_measuring() {
            self.print_table();
        }
    }

    fn measure_with_criterion(&mut self) {
        let criterion = Criterion::default()
            .without_plots()
            .warm_up_time(Duration::from_millis(500))
            .measurement_time(Duration::from_secs(2));
        let mut criterion = criterion.configure_from_args();
        let mut group = criterion.benchmark_group(self.title);
        group.throughput(Throughput::Elements(self.units_per_turn));
        // Flat: samples of one length, so that what a batch costs to start weighs the same in all.
        group.sampling_mode(SamplingMode::Flat);
        for contender in &mut self.contenders {
            contender.bench(&mut group);
        }
        group.finish();
        criterion.final_summary();
    }

    fn print_table(&mut self) {
        let rounds = self.measure_in_rounds();
        let units = self.units_per_turn * self.turns_per_round;
        let Self { title, unit, .. } = self;
        println!("\n{title}: medians of {ROUNDS} interleaved rounds of {units} × {unit}");
        println!("{:34} {:>12} {:>12} {:>9}", "", "ns", "added ns", "ratio");
        let baseline = self.contenders[0].name;
        for Contender { name, .. } in &self.contenders {
            let (nanos, added) = (rounds.nanos(name), rounds.difference(name, baseline));
            let ratio = rounds.ratio(name, baseline);
            println!("{name:34} {nanos:12.2} {added:12.2} {ratio:9.2}");
        }
        for goal in &self.goals {
            goal.print(&rounds);
        }
    }

    fn measure_in_rounds(&mut self) -> Rounds {
        let names = self.contenders.iter().map(|contender| contender.name);
        let units = self.units_per_turn * self.turns_per_round;
        let mut rounds = Rounds::new(names, units);
        let contenders = self.contenders.len();
        // Round 0 warms up and is thrown away.
        for round in 0..=ROUNDS {
            for turn in 0..contenders {
                let which = (round + turn) % contenders;
                let taken = (self.contenders[which].run)(self.turns_per_round);
                if round > 0 {
                    rounds.add(which, taken);
                }
            }
        }
        rounds
    }
}

/// Not if it is only asked whether all of it runs, as `cargo test --benches` does.
pub fn is_measuring() -> bool {
    let asked = |flag| std::env::args().any(|arg| arg == flag);
    asked("--bench") && !asked("--test") && !asked("--list")
}

impl Contender<'_> {
    fn bench(&mut self, group: &mut BenchmarkGroup<'_, WallTime>) {
        let run = &mut self.run;
        group.bench_function(self.name, |bencher| bencher.iter_custom(&mut *run));
    }
}

impl Goal {
    fn print(&self, rounds: &Rounds) {
        let Self { text, limit, .. } = self;
        let measured = (self.measure)(rounds);
        // As printed: 1.004 is not told from 1.00 by any of these machines.
        let met = (measured * 100.0).round() <= (limit * 100.0).round();
        let outcome = if met { "met" } else { "missed" };
        println!("goal: {text}: {measured:.2}, at most {limit:.2}: {outcome}");
    }
}

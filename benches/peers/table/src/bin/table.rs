//! Prints what a poll costs under each of the peers, as a table in markdown.
//!
//! Every contender is a process of its own, because some of them want to be the process's only subscriber,
//! or a tokio of another build. All of them live as long as the table is measured, and take turns: in every
//! round each runs a batch, in rotating order, and only figures of one round are compared.
//!
//! The arguments are the programs in which the contenders are; the first of the first is the baseline.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use shotclock_peers_table::Workload;

/// Odd, so that a median is a measured value.
const ROUNDS: usize = 61;
/// In one batch, of all tasks together.
const POLLS: u64 = 64 * 1_500;

struct Contender {
    name: String,
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Nanoseconds of a poll, by workload, one for each round.
    rounds: [Vec<f64>; Workload::ALL.len()],
}

impl Contender {
    fn all(program: &str) -> io::Result<Vec<Self>> {
        let names = Command::new(program).output()?.stdout;
        let names = String::from_utf8(names).map_err(io::Error::other)?;
        names
            .lines()
            .map(|name| Self::start(program, name))
            .collect()
    }

    fn start(program: &str, name: &str) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.arg(name);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = piped.spawn()?;
        let gone = || io::Error::other("a contender cannot be talked to");
        let asks = child.stdin.take().ok_or_else(gone)?;
        let answers = BufReader::new(child.stdout.take().ok_or_else(gone)?);
        Ok(Self {
            name: name.to_owned(),
            child,
            asks,
            answers,
            rounds: Default::default(),
        })
    }

    /// Nanoseconds of a poll; `None` if that workload is not watched by this one.
    fn run(&mut self, workload: Workload) -> io::Result<Option<f64>> {
        writeln!(self.asks, "{} {POLLS}", workload.name())?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        match answer.trim() {
            "-" => Ok(None),
            nanos => {
                let unclear = |_| io::Error::other(format!("{} answered {answer:?}", self.name));
                let nanos: f64 = nanos.parse().map_err(unclear)?;
                Ok(Some(nanos / POLLS as f64))
            }
        }
    }

    /// What is added to the polls of the other one, or how many times they take, round by round.
    fn compare(&self, other: &Self, workload: usize, with: fn(f64, f64) -> f64) -> Option<f64> {
        let pairs = self.rounds[workload].iter().zip(&other.rounds[workload]);
        median(pairs.map(|(one, other)| with(*one, *other)).collect())
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn measure(contenders: &mut [Contender]) -> io::Result<()> {
    // Round 0 warms up and is thrown away.
    for round in 0..=ROUNDS {
        for (place, workload) in Workload::ALL.into_iter().enumerate() {
            for turn in 0..contenders.len() {
                let which = (round + turn) % contenders.len();
                let contender = &mut contenders[which];
                let nanos = contender.run(workload)?;
                if let (Some(nanos), 1..) = (nanos, round) {
                    contender.rounds[place].push(nanos);
                }
            }
        }
    }
    Ok(())
}

fn print(contenders: &[Contender]) {
    let Some(bare) = contenders.first() else {
        return;
    };
    let headings = Workload::ALL.map(Workload::heading).join(" | ");
    println!("| ns a poll, added to bare | {headings} |");
    println!("|---|{}", "---:|".repeat(Workload::ALL.len()));
    for contender in contenders {
        print!("| {} |", contender.name);
        for workload in 0..Workload::ALL.len() {
            let added = contender.compare(bare, workload, |one, other| one - other);
            let ratio = contender.compare(bare, workload, |one, other| one / other);
            match (added, ratio) {
                _ if contender.name == bare.name => {
                    let nanos = median(bare.rounds[workload].clone()).unwrap_or_default();
                    print!(" ({nanos:.1}) |");
                }
                (Some(added), Some(ratio)) => print!(" {added:+.1} ({ratio:.2} ×) |"),
                _ => print!(" – |"),
            }
        }
        println!();
    }
}

fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown", |model| {
        model.trim_start_matches([' ', '\t', ':'])
    });
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let rustc = Command::new("rustc").arg("-V").output();
    let rustc = rustc.map_or_else(
        |_| "rustc unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).into_owned(),
    );
    let rustc: Vec<_> = rustc.split(' ').take(2).collect();
    format!(
        "{model}, {cores} cores, Linux {}, {}",
        kernel.trim(),
        rustc.join(" ")
    )
}

fn main() -> io::Result<()> {
    let mut contenders = Vec::new();
    for program in std::env::args().skip(1) {
        contenders.extend(Contender::all(&program)?);
    }
    measure(&mut contenders)?;
    print(&contenders);
    println!(
        "\n{}; medians of {ROUNDS} interleaved rounds of {POLLS} polls.",
        machine()
    );
    Ok(())
}

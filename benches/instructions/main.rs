//! How many instructions the hot path has, and how many of them lock a word that others may want: figures
//! that no busy machine changes, so that they can fail. Ends with an error if one is above its bound.
//!
//! Without a subject it runs itself under valgrind, twice for each subject. It subtracts the shorter run from the longer one, so
//! one-time work does not count (Debian packages `valgrind` and `binutils`).

mod callgrind;
mod locks;
mod subjects;

use std::collections::HashMap;
use std::process::ExitCode;

use callgrind::Counted;
use subjects::{SUBJECTS, Subject};

/// The turns of the shorter run. The longer run has twice as many.
const TURNS: u64 = 64_000;

/// Of one turn.
#[derive(Clone, Copy, Default)]
struct Figures {
    instructions: f64,
    locks: f64,
}

impl Figures {
    fn of(subject: &Subject) -> Self {
        let [shorter, longer] = [TURNS, 2 * TURNS].map(|turns| Counted::of(subject.name, turns));
        let per_turn = |one: u64, other: u64| (one as f64 - other as f64) / TURNS as f64;
        Self {
            instructions: per_turn(longer.instructions, shorter.instructions),
            locks: per_turn(longer.locks, shorter.locks),
        }
    }
}

/// Whether no figure is above its bound.
fn measure() -> bool {
    let mut known: HashMap<&str, Figures> = HashMap::new();
    let mut is_well = true;
    println!(
        "{:60} {:>12} {:>8} {:>6} {:>8}",
        "of one turn", "instructions", "at most", "locks", "at most"
    );
    for subject in SUBJECTS {
        let all = Figures::of(subject);
        let less = known.get(subject.less).copied().unwrap_or_default();
        known.insert(subject.name, all);
        let added = all.instructions - less.instructions;
        let locks = all.locks - less.locks;
        // A few happen beside the loop now and then, as when the slice ticker advances.
        let is_met = added <= subject.at_most && locks < subject.locks + 0.01;
        is_well &= is_met;
        let outcome = if is_met { "" } else { "  TOO MANY" };
        let name = match subject.less {
            "" => subject.name.to_owned(),
            less => format!("{} - {less}", subject.name),
        };
        println!(
            "{name:60} {added:12.1} {:8} {locks:6.2} {:8}{outcome}",
            subject.at_most, subject.locks
        );
    }
    is_well
}

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    if let [_, name, turns] = args[..] {
        let subject = SUBJECTS.iter().find(|subject| subject.name == name);
        if let (Some(subject), Ok(turns)) = (subject, turns.parse()) {
            (subject.run)(turns);
            locks::print_maps();
            return ExitCode::SUCCESS;
        }
    }
    if !shotclock_peers::is_measuring() {
        return ExitCode::SUCCESS;
    }
    if !cfg!(target_arch = "x86_64") {
        eprintln!("of this processor it is not known which instructions lock");
        return ExitCode::FAILURE;
    }
    match measure() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

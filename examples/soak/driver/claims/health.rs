//! The claims about the service's memory, files, threads, end and metrics.

use super::super::child::Counts;
use super::super::rounds::{Round, Soak};
use super::super::scrape::{Scrape, WORST_CULPRITS};
use super::{Claim, number};

/// The limit in percent of the growth of memory after a full warm-up. During the warm-up, the bounded tables of
/// culprits and stacks fill up.
const FLAT: f64 = 5.0;
const WARM: f64 = 240.0;
/// The limit in percent after a shorter warm-up.
const GROWING: f64 = 40.0;

/// The rounds after the warm-up, preceded by its last round.
fn warm(soak: &Soak) -> &[Round] {
    soak.rounds.get(soak.warm_up - 1..).unwrap_or_default()
}

pub(super) fn counters(soak: &Soak) -> Claim {
    Claim {
        name: "counters",
        what: "No counter goes back, and no series is there twice or goes away (but of the culprits)",
        figure: format!(
            "{} scrapes, each answered; the slowest in {:.0?}",
            number(soak.book.scrapes),
            soak.book.slowest
        ),
        faults: soak.book.faults.clone(),
    }
}

pub(super) fn series(soak: &Soak) -> Claim {
    let (series, mut changed) = soak.book.changed();
    let culprits = soak.book.culprits;
    if culprits > WORST_CULPRITS {
        changed.push(format!("{culprits} culprits"));
    }
    Claim {
        name: "series",
        what: "The series are those of the end of the warm-up, but for the culprits, which are bounded",
        figure: format!("{} series, {culprits} culprits", number(series as u64)),
        faults: changed,
    }
}

/// The values that a leak makes grow.
pub(super) fn allocated(soak: &Soak) -> Claim {
    let rest = deviation(warm(soak), |round| round.allocated);
    Claim {
        name: "allocated",
        what: within(
            soak,
            "Allocated memory at rest stays within 5 % of its value after the warm-up",
            "Allocated memory at rest stays within 40 % of its value after a short warm-up",
        ),
        figure: format!("at most {rest:+.1} %"),
        faults: too_far(soak, &[rest]),
    }
}

/// All memory of the process, whatever the reason.
pub(super) fn memory(soak: &Soak) -> Claim {
    let rest = deviation(warm(soak), |round| round.rest.rss);
    let loaded = deviation(warm(soak), |round| round.loaded.rss);
    Claim {
        name: "memory",
        what: within(
            soak,
            "Resident memory stays within 5 % of what it was after the warm-up",
            "Resident memory stays within 40 % of what it was after a warm-up that is too short",
        ),
        figure: format!("at most {loaded:+.1} % under load, {rest:+.1} % at rest"),
        faults: too_far(soak, &[loaded, rest]),
    }
}

/// Names the claim after a long warm-up, and after a short one.
fn within(soak: &Soak, flat: &'static str, growing: &'static str) -> &'static str {
    if limit(soak) > FLAT { growing } else { flat }
}

fn too_far(soak: &Soak, percents: &[f64]) -> Vec<String> {
    let limit = limit(soak);
    let is_far = |percent: &&f64| percent.abs() > limit;
    let faults = percents.iter().filter(is_far);
    faults.map(|percent| format!("{percent:+.1} %")).collect()
}

fn limit(soak: &Soak) -> f64 {
    let warm_up = soak.rounds.iter().take(soak.warm_up);
    let warmed_up: f64 = warm_up.map(|round| round.seconds).sum();
    if warmed_up >= WARM { FLAT } else { GROWING }
}

/// Returns the largest difference from the first value, in percent.
fn deviation(rounds: &[Round], of: fn(&Round) -> u64) -> f64 {
    let first = rounds.first().map_or(1, of).max(1) as f64;
    let percent = rounds
        .iter()
        .map(|round| (of(round) as f64 / first - 1.0) * 100.0);
    percent
        .max_by(|a, b| a.abs().total_cmp(&b.abs()))
        .unwrap_or_default()
}

pub(super) fn files(soak: &Soak) -> Claim {
    flat(
        "files",
        "As many files are open at rest as after the warm-up",
        warm(soak),
        |round| round.rest.files,
    )
}

pub(super) fn threads(soak: &Soak) -> Claim {
    flat(
        "threads",
        "As many threads are there at rest as after the warm-up",
        warm(soak),
        |round| round.rest.threads,
    )
}

fn flat(name: &'static str, what: &'static str, rounds: &[Round], of: fn(&Round) -> u64) -> Claim {
    let numbers: Vec<_> = rounds.iter().map(of).collect();
    let (least, most) = (numbers.iter().min(), numbers.iter().max());
    let (least, most) = (least.copied().unwrap_or(0), most.copied().unwrap_or(0));
    let figure = match least == most {
        true => format!("{least} at {} rests", rounds.len()),
        false => format!("{least} to {most}"),
    };
    Claim {
        name,
        what,
        faults: (least != most)
            .then(|| format!("{numbers:?}"))
            .into_iter()
            .collect(),
        figure,
    }
}

pub(super) fn interrupted(counts: &Counts) -> Claim {
    let interrupted = counts.interrupted;
    Claim {
        name: "calls",
        what: "No system call of the service failed with `EINTR`",
        figure: format!("{interrupted}"),
        faults: (interrupted > 0)
            .then(|| format!("{interrupted}"))
            .into_iter()
            .collect(),
    }
}

pub(super) fn end(scrape: &Scrape, ended: bool) -> Claim {
    let gauges = [
        "shotclock_polls_in_flight",
        "shotclock_stalls_in_flight",
        "shotclock_stuck_workers",
        "shotclock_offload_in_flight",
        "shotclock_offload_queued",
    ];
    let is_left = |gauge: &&str| scrape.sum(gauge, &[]) > 0;
    let left = gauges.into_iter().filter(is_left).map(str::to_owned);
    let failed = (!ended).then(|| "it did not end by itself".to_owned());
    Claim {
        name: "end",
        what: "In the end nothing is in flight, stuck or queued, and the service ends",
        figure: String::new(),
        faults: left.chain(failed).collect(),
    }
}

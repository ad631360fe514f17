//! The claims about counts: those of the watchdog beside those of the service and the clients.

use super::super::child::Counts;
use super::super::load::APPS;
use super::super::polls::POLLS;
use super::super::rounds::Soak;
use super::super::scrape::Scrape;
use super::{Claim, differ, number};

const ANSWERS: &str = "soak_answers_total";
const PANICKED: &str = "shotclock_panicked_polls_total";
const RUNS: &str = "shotclock_offload_run_seconds_count";

pub(super) fn polls(soak: &Soak, counts: &Counts) -> Claim {
    let comparison = &soak.comparison;
    Claim {
        name: "polls",
        what: "Every poll is counted: those in `/metrics` are those that the test counted",
        figure: format!(
            "{} polls of {} watches; {} comparisons at rest, {} under load",
            number(counts.polls()),
            counts.by_watch.len(),
            number(comparison.at_rest),
            number(comparison.between)
        ),
        faults: comparison.faults.clone(),
    }
}

pub(super) fn known(soak: &Soak, scrape: &Scrape) -> Claim {
    let known = |app: &&str| {
        let watch = format!("{app}-known");
        let (request, counted) = (
            soak.clients.known.of(&watch),
            scrape.value(POLLS, "watch", &watch),
        );
        differ(&watch, request, counted.unwrap_or_default())
    };
    Claim {
        name: "known polls",
        what: "Polls that a client asked for by number are as many in `/metrics`",
        figure: format!("{} polls", number(soak.clients.known.sum())),
        faults: APPS.iter().filter_map(known).collect(),
    }
}

pub(super) fn answers(soak: &Soak, scrape: &Scrape) -> Claim {
    let answers = &soak.clients.answers;
    let faults = scrape
        .values(ANSWERS, "route")
        .into_iter()
        .filter_map(|route| {
            let counted = scrape.value(ANSWERS, "route", route).unwrap_or_default();
            differ(route, answers.of(route), counted)
        });
    Claim {
        name: "answers",
        what: "The clients got as many answers as the handlers counted, and no other failures than asked for",
        figure: format!(
            "{} answers; {} clients left early, as they were to",
            number(answers.sum()),
            number(soak.clients.left.get())
        ),
        faults: faults
            .chain(soak.clients.failures.borrow().iter().cloned())
            .collect(),
    }
}

pub(super) fn panics(soak: &Soak, scrape: &Scrape) -> Claim {
    let watches = scrape.values(PANICKED, "watch").into_iter();
    let faults = watches.filter_map(|watch| {
        let counted = scrape.value(PANICKED, "watch", watch).unwrap_or_default();
        differ(watch, soak.clients.panics.of(watch), counted)
    });
    Claim {
        name: "panics",
        what: "Every poll that panicked is counted, and no other",
        figure: format!("{} panics", number(soak.clients.panics.sum())),
        faults: faults.collect(),
    }
}

pub(super) fn offloads(soak: &Soak, counts: &Counts, scrape: &Scrape) -> Claim {
    // Each poll of a future is a job of the lane.
    let asked = |app: &str| {
        let polls = counts.by_watch.get(&format!("{app}-offloaded"));
        soak.clients.answers.of(&format!("/{app}/offload")) + polls.map_or(0, |count| count.ended)
    };
    let fault = |app: &&str| {
        let lane = format!("{app}-lane");
        let ran = scrape.value(RUNS, "lane", &lane).unwrap_or_default();
        differ(&lane, asked(app), ran)
    };
    Claim {
        name: "jobs",
        what: "Every job of a lane ran, and is counted",
        figure: format!("{} jobs", number(APPS.iter().map(|app| asked(app)).sum())),
        faults: APPS.iter().filter_map(fault).collect(),
    }
}

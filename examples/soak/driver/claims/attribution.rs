//! The claims about reports and their attribution.

use super::super::child::Counts;
use super::super::load::APPS;
use super::super::rounds::Soak;
use super::super::scrape::Scrape;
use super::super::stalls::Site;
use super::{Claim, number};

const SLOW: &str = "shotclock_slow_polls_total";
const SUPPRESSED: &str = "shotclock_reports_suppressed_total";

/// A wake-up of a thread takes a lock, whose holder may not be scheduled. A poll that waits for it past its budget is
/// reported, which is true and not due to the route: at most one in this number of polls.
const LOCKS: u64 = 100_000;
/// Under `Timing::Ticked`, a poll that began under a late tick counts from the next tick only. So it may be within its
/// budget: at most one stall in this number.
const MISSED: u64 = 100;

/// Returns the starved and suspended polls of a watch.
fn excused(scrape: &Scrape, watch: &str) -> u64 {
    let cause = |cause| scrape.sum(SLOW, &[("watch", watch), ("cause", cause)]);
    cause("starved") + cause("suspended")
}

/// Returns the stalls of a ticked watch that it may not count as slow.
fn missed(scrape: &Scrape, watch: &str, stalls: u64) -> u64 {
    match watch.contains("ticked") {
        true => stalls.saturating_sub(scrape.sum(SLOW, &[("watch", watch)])),
        false => 0,
    }
}

pub(super) fn stalls(soak: &Soak, scrape: &Scrape) -> Claim {
    let sites = &soak.stalls.polls.sites;
    let missed_at = |(watch, site): (&String, &Site)| missed(scrape, watch, site.announced);
    let lost = sites.iter().filter_map(|(watch, site)| {
        let untold = site.announced - site.told;
        let (excused, missed) = (excused(scrape, watch), missed_at((watch, site)));
        (untold > excused + missed).then(|| {
            format!("{watch}: {untold} untold, {excused} of them perhaps excused, {missed} missed by ticks")
        })
    });
    let sum = |of: fn(&Site) -> u64| sites.values().map(of).sum();
    let (announced, told): (u64, u64) = (sum(|site| site.announced), sum(|site| site.told));
    let missed: u64 = sites.iter().map(missed_at).sum();
    let too_many = (missed * MISSED > announced).then(|| format!("{missed} missed by ticks"));
    let disorder = soak.stalls.reports.disorder.iter().cloned();
    Claim {
        name: "stalls",
        what: "Every stall on purpose is reported once, with one end",
        figure: format!(
            "{} stalls: {} reported, of which {} while they lasted; {} excused, {missed} missed by ticks that came late",
            number(announced),
            number(told),
            number(sum(|site| site.told_early)),
            (announced - told).saturating_sub(missed),
        ),
        faults: lost.chain(too_many).chain(disorder).collect(),
    }
}

pub(super) fn workers(soak: &Soak) -> Claim {
    let workers = &soak.stalls.workers;
    Claim {
        name: "workers",
        what: "Every worker that was blocked where nothing is watched is reported once",
        figure: format!(
            "{} blocked, {} reported; {} more for several watched stalls in a row",
            workers.announced, workers.told, workers.chains
        ),
        faults: workers.faults.clone(),
    }
}

pub(super) fn false_reports(soak: &Soak, counts: &Counts, scrape: &Scrape) -> Claim {
    let cause = |cause| scrape.sum(SLOW, &[("cause", cause)]);
    let excused = cause("starved") + cause("suspended");
    let is_lock = |text: &&String| text.contains("blocked in futex");
    let (locks, mut blamed): (Vec<_>, Vec<_>) = soak.stalls.false_reports.iter().partition(is_lock);
    let polls = counts.polls();
    if locks.len() as u64 * LOCKS > polls {
        blamed.extend(&locks);
    }
    Claim {
        name: "attribution",
        what: "No other poll is charged",
        figure: format!(
            "{} of {} polls; {} were over their budget through the host alone, and excused; \
             {} waited that long for a lock of the runtime's or of rayon's, and are reported as that",
            blamed.len(),
            number(polls),
            number(excused),
            locks.len(),
        ),
        faults: blamed.into_iter().cloned().collect(),
    }
}

pub(super) fn exceptions(soak: &Soak, scrape: &Scrape) -> Claim {
    let declared_in = |app: &str| soak.clients.answers.of(&format!("/{app}/allowed"));
    let uncounted_in = |app: &&str| {
        let watch = format!("{app}-allowed");
        excused(scrape, &watch) + missed(scrape, &watch, declared_in(app))
    };
    let declared: u64 = APPS.iter().map(|app| declared_in(app)).sum();
    let uncounted: u64 = APPS.iter().map(uncounted_in).sum();
    let allowed = scrape.sum(SUPPRESSED, &[("reason", "allowed")]);
    let holds = (declared.saturating_sub(uncounted)..=declared).contains(&allowed);
    Claim {
        name: "exceptions",
        what: "Declared exceptions are counted as such, and not reported",
        figure: format!(
            "{declared} declared, {allowed} counted; {uncounted} excused, or missed by ticks"
        ),
        faults: (!holds)
            .then(|| "they differ".to_owned())
            .into_iter()
            .collect(),
    }
}

pub(super) fn reports(soak: &Soak, scrape: &Scrape) -> Claim {
    let dropped = scrape.sum("shotclock_reports_dropped_total", &[]);
    let limited = scrape.sum(SUPPRESSED, &[("reason", "rate_limit")]);
    let reentrant = scrape.sum(SUPPRESSED, &[("reason", "reporter_thread")]);
    let lost = dropped + limited + reentrant;
    Claim {
        name: "reports",
        what: "No report was dropped or left out",
        figure: format!("{lost} of {}", number(soak.stalls.reported())),
        faults: (lost > 0)
            .then(|| format!("{dropped} {limited} {reentrant}"))
            .into_iter()
            .collect(),
    }
}

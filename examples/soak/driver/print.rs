//! Prints the result as Markdown.

use super::claims::{Claim, number};
use super::process::machine;
use super::rounds::{Round, Soak};

/// The number of printed facts against a claim.
const MOST: usize = 10;

pub(super) fn print(soak: &Soak, claims: &[Claim]) {
    println!("{}\n", summary(soak));
    println!("| claim | figures | |");
    println!("|---|---|---|");
    for Claim {
        what,
        figure,
        faults,
        ..
    } in claims
    {
        let outcome = if faults.is_empty() {
            "holds"
        } else {
            "**FAILS**"
        };
        println!("| {what} | {figure} | {outcome} |");
    }
    for claim in claims.iter().filter(|claim| !claim.faults.is_empty()) {
        faults(claim);
    }
    sites(soak);
    rounds(soak);
}

fn summary(soak: &Soak) -> String {
    let seconds: f64 = soak.rounds.iter().map(|round| round.seconds).sum();
    let requests = soak.clients.requests();
    format!(
        "{:.1} minutes of load in {} rounds, {} requests, {:.0} a second, on {}.",
        seconds / 60.0,
        soak.rounds.len(),
        number(requests),
        requests as f64 / seconds,
        machine()
    )
}

fn faults(claim: &Claim) {
    println!("\nAgainst \"{}\":\n\n```text", claim.what);
    for fault in claim.faults.iter().take(MOST) {
        println!("{fault}");
    }
    if claim.faults.len() > MOST {
        println!("and {} more", claim.faults.len() - MOST);
    }
    println!("```");
}

fn sites(soak: &Soak) {
    println!("\n| stalls in polls of | on purpose | reported | while they lasted |");
    println!("|---|---:|---:|---:|");
    for (watch, site) in &soak.stalls.polls.sites {
        println!(
            "| `{watch}` | {} | {} | {} |",
            site.announced, site.told, site.told_early
        );
    }
}

fn rounds(soak: &Soak) {
    println!(
        "\n| minute | requests | polls | stalls reported | allocated at rest | RSS under load | at rest | files | threads | of a core | load average |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    let mut minutes = 0.0;
    for (index, round) in soak.rounds.iter().enumerate() {
        minutes += round.seconds / 60.0;
        let warming = if index < soak.warm_up {
            " (warm-up)"
        } else {
            ""
        };
        println!("| {minutes:.1}{warming} {}", row(round));
    }
}

fn row(round: &Round) -> String {
    let mib = |kib: u64| format!("{:.1} MiB", kib as f64 / 1024.0);
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} | {:.2} | {:.1} |",
        number(round.requests),
        number(round.polls),
        number(round.told),
        mib(round.allocated / 1024),
        mib(round.loaded.rss),
        mib(round.rest.rss),
        round.rest.files,
        round.rest.threads,
        round.used,
        round.host.load
    )
}

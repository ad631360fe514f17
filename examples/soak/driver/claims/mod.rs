//! The claims of the soak, and their results.

mod attribution;
mod counts;
mod health;

use super::child::Counts;
use super::rounds::Soak;
use super::scrape::Scrape;

/// A claim in one sentence, its figures, and the facts against it.
pub(super) struct Claim {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) figure: String,
    pub(super) faults: Vec<String>,
}

impl Claim {
    pub(super) fn holds(&self) -> bool {
        self.faults.is_empty()
    }
}

/// Checks all claims. `ended` is true if the service ended with success.
pub(super) fn claims(soak: &Soak, counted: &Counts, scrape: &Scrape, ended: bool) -> Vec<Claim> {
    vec![
        counts::polls(soak, counted),
        counts::known(soak, scrape),
        counts::answers(soak, scrape),
        counts::panics(soak, scrape),
        counts::offloads(soak, counted, scrape),
        attribution::stalls(soak, scrape),
        attribution::workers(soak),
        attribution::false_reports(soak, counted, scrape),
        attribution::exceptions(soak, scrape),
        attribution::reports(soak, scrape),
        health::counters(soak),
        health::series(soak),
        health::allocated(soak),
        health::memory(soak),
        health::files(soak),
        health::threads(soak),
        health::interrupted(counted),
        health::end(scrape, ended),
    ]
}

fn differ(what: &str, known: u64, counted: u64) -> Option<String> {
    (known != counted).then(|| format!("{what}: {known} by the test, {counted} in /metrics"))
}

/// Formats a number with its digits in groups of three.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

//! Compares the service's counts of polls with those in `/metrics`.

use super::child::Counts;
use super::scrape::Scrape;

#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// The numbers of one watch that were compared: under load, and at rest.
    pub(super) between: u64,
    pub(super) at_rest: u64,
    pub(super) faults: Vec<String>,
    /// Destructors that the watchdog may have counted as slow polls.
    pub(super) long_drops: u64,
}

impl Comparison {
    /// A scrape has at least the polls that had ended before it, and at most those that had begun after it.
    pub(super) fn between(&mut self, before: &Counts, scrape: &Scrape, after: &Counts) {
        for (watch, after) in &after.by_watch {
            let least = before.by_watch.get(watch).map_or(0, |count| count.ended);
            let most = after.began + after.long_drops;
            self.between += 1;
            self.hold(watch, scrape, least, most);
        }
    }

    /// At rest nothing is in flight, so both counts are equal. The watchdog counts a slow destructor as a poll; the
    /// service measures it from outside, so its time is at least as long.
    pub(super) fn at_rest(&mut self, counts: &Counts, scrape: &Scrape) {
        self.long_drops = counts.by_watch.values().map(|count| count.long_drops).sum();
        for (watch, count) in &counts.by_watch {
            self.at_rest += 1;
            if count.began != count.ended {
                let in_flight = count.began - count.ended;
                self.faults
                    .push(format!("{watch}: {in_flight} in flight at rest"));
            }
            let most = count.ended + count.long_drops;
            self.hold(watch, scrape, count.ended, most);
            self.agree(watch, scrape);
        }
        for watch in scrape.values(POLLS, "watch") {
            let polls = scrape.value(POLLS, "watch", watch);
            if !counts.by_watch.contains_key(watch) && polls != Some(0) {
                self.faults
                    .push(format!("{watch}: {polls:?} unknown polls"));
            }
        }
    }

    fn hold(&mut self, watch: &str, scrape: &Scrape, least: u64, most: u64) {
        for metric in [POLLS, DISTRIBUTED] {
            let counted = scrape.value(metric, "watch", watch).unwrap_or(0);
            if !(least..=most).contains(&counted) {
                self.faults.push(format!(
                    "{watch}: {counted} by {metric}, {least} to {most} by the test"
                ));
            }
        }
    }

    /// Under load, the two counts may be taken a moment apart.
    fn agree(&mut self, watch: &str, scrape: &Scrape) {
        let [polls, distributed] =
            [POLLS, DISTRIBUTED].map(|metric| scrape.value(metric, "watch", watch));
        if polls != distributed {
            self.faults.push(format!(
                "{watch}: {polls:?} polls, {distributed:?} in the histogram"
            ));
        }
    }
}

pub(super) const POLLS: &str = "shotclock_polls_total";
const DISTRIBUTED: &str = "shotclock_poll_duration_seconds_count";

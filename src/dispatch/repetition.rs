//! Finds repetitions in the log: the stack of one culprit is logged once a minute.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::culprit_sample::{CulpritSample, Identity};
use super::culprit_totals::MAX_CULPRITS;

/// The time in which a repetition of a culprit is logged without its stack.
const REPETITION_WINDOW: Duration = Duration::from_secs(60);

/// The culprits of the last minute, at most [`MAX_CULPRITS`]. Reports of further ones are logged with their stack.
#[derive(Default)]
pub(super) struct Repetitions {
    logged: HashMap<Identity, Logged>,
}

struct Logged {
    /// The poll whose stack was logged, and the time of its first report.
    id: u64,
    at: Instant,
    /// The latest poll since then, and the number of polls.
    latest: u64,
    count: u64,
}

impl Repetitions {
    /// Counts the polls of this culprit since its stack was logged, with this one. `None` if the stack is due.
    ///
    /// All reports of one poll get the same answer.
    pub(super) fn count(&mut self, culprit: &CulpritSample<'_>, now: Instant) -> Option<u64> {
        let CulpritSample { id, identity, .. } = culprit;
        let is_recent =
            |logged: &Logged| now.saturating_duration_since(logged.at) < REPETITION_WINDOW;
        match self.logged.get_mut(identity) {
            Some(logged) if logged.id == *id => None,
            Some(logged) if is_recent(logged) || logged.latest == *id => {
                logged.count += u64::from(logged.latest != *id);
                logged.latest = *id;
                Some(logged.count)
            }
            _ => {
                self.remember(*id, identity.clone(), now);
                None
            }
        }
    }

    fn remember(&mut self, id: u64, identity: Identity, now: Instant) {
        if self.logged.len() >= MAX_CULPRITS {
            self.logged
                .retain(|_, logged| now.saturating_duration_since(logged.at) < REPETITION_WINDOW);
        }
        if self.logged.len() < MAX_CULPRITS || self.logged.contains_key(&identity) {
            let logged = Logged {
                id,
                at: now,
                latest: id,
                count: 0,
            };
            self.logged.insert(identity, logged);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Cause;
    use crate::stack::Stack;

    #[test]
    fn count_within_a_minute_is_a_repetition_and_the_same_for_all_reports_of_a_poll() {
        let (mut repetitions, start) = (Repetitions::default(), Instant::now());
        let stack = Stack::new(Vec::new(), None);
        let mut count = |id, function: &str, seconds| {
            let culprit = CulpritSample {
                id,
                identity: Identity {
                    watch: "w".into(),
                    cause: Cause::Computing,
                    function: function.into(),
                },
                place: None,
                stack: &stack,
                path: Vec::new(),
                over_budget: Duration::ZERO,
                has_ended: false,
            };
            repetitions.count(&culprit, start + Duration::from_secs(seconds))
        };
        assert_eq!(count(1, "a", 0), None);
        assert_eq!(count(1, "a", 1), None, "its end");
        assert_eq!(count(2, "a", 2), Some(1));
        assert_eq!(count(2, "a", 3), Some(1), "its end");
        assert_eq!(count(3, "b", 3), None, "another function");
        assert_eq!(count(4, "a", 59), Some(2));
        assert_eq!(count(4, "a", 61), Some(2), "its end, too");
        assert_eq!(count(5, "a", 62), None);
        assert_eq!(count(6, "a", 63), Some(1));
    }
}

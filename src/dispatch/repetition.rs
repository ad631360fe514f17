//! Finds repetitions in the log: the stack of one culprit is logged once a minute.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::culprit_sample::{CulpritSample, Identity};

/// The time in which a repetition of a culprit is logged without its stack.
const REPETITION_WINDOW: Duration = Duration::from_secs(60);

/// Culprits that are remembered. Reports of further ones are logged with their stack each time.
const MAX_CULPRITS: usize = 1_000;

/// Says how to log a report.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Repetition {
    /// With its stack.
    First,
    /// Without: the stack of this culprit was logged less than a minute ago. The number counts the polls since then,
    /// with this one.
    Again(u64),
}

/// The culprits of the last minute.
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
    /// Classifies a report. All reports of one poll get the same answer.
    pub(super) fn classify(
        &mut self,
        culprit: Option<&CulpritSample<'_>>,
        now: Instant,
    ) -> Repetition {
        let Some(CulpritSample { id, identity, .. }) = culprit else {
            return Repetition::First;
        };
        let is_recent =
            |logged: &Logged| now.saturating_duration_since(logged.at) < REPETITION_WINDOW;
        match self.logged.get_mut(identity) {
            Some(logged) if logged.id == *id => Repetition::First,
            Some(logged) if is_recent(logged) || logged.latest == *id => {
                logged.count += u64::from(logged.latest != *id);
                logged.latest = *id;
                Repetition::Again(logged.count)
            }
            _ => {
                self.remember(*id, identity.clone(), now);
                Repetition::First
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
    fn classify_within_a_minute_is_a_repetition_and_the_same_for_all_reports_of_a_poll() {
        let (mut repetitions, start) = (Repetitions::default(), Instant::now());
        let stack = Stack::new(Vec::new(), None);
        let mut classify = |id, function: &str, seconds| {
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
            repetitions.classify(Some(&culprit), start + Duration::from_secs(seconds))
        };
        assert_eq!(classify(1, "a", 0), Repetition::First);
        assert_eq!(classify(1, "a", 1), Repetition::First, "its end");
        assert_eq!(classify(2, "a", 2), Repetition::Again(1));
        assert_eq!(classify(2, "a", 3), Repetition::Again(1), "its end");
        assert_eq!(classify(3, "b", 3), Repetition::First, "another function");
        assert_eq!(classify(4, "a", 59), Repetition::Again(2));
        assert_eq!(classify(4, "a", 61), Repetition::Again(2), "its end, too");
        assert_eq!(classify(5, "a", 62), Repetition::First);
        assert_eq!(classify(6, "a", 63), Repetition::Again(1));
        assert_eq!(repetitions.classify(None, start), Repetition::First);
    }
}

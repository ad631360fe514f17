//! The same culprit again: that is said in short.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::culprit::{Accusation, Identity};

/// For how long the same is not said again at length.
const MEMORY: Duration = Duration::from_secs(60);

/// How many are remembered. What is beyond is said at length.
const MOST: usize = 1_000;

/// How a report is to be told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Length {
    /// With its stack.
    Whole,
    /// The same function was told with its stack less than a minute ago; since then there were so many
    /// polls, this one among them.
    Short(u64),
}

/// What was told of late.
#[derive(Default)]
pub(super) struct Again {
    told: HashMap<Identity, Told>,
}

struct Told {
    /// The poll that was told whole, and when it was first.
    id: u64,
    at: Instant,
    /// The latest poll since, and how many there were.
    latest: u64,
    count: u64,
}

impl Again {
    /// Says how to tell it. All reports of one poll are told alike.
    pub(super) fn length(&mut self, accusation: Option<&Accusation<'_>>, now: Instant) -> Length {
        let Some(Accusation { id, identity, .. }) = accusation else {
            return Length::Whole;
        };
        let is_remembered = |told: &Told| now.saturating_duration_since(told.at) < MEMORY;
        match self.told.get_mut(identity) {
            Some(told) if told.id == *id => Length::Whole,
            Some(told) if is_remembered(told) || told.latest == *id => {
                told.count += u64::from(told.latest != *id);
                told.latest = *id;
                Length::Short(told.count)
            }
            _ => {
                self.remember(*id, identity.clone(), now);
                Length::Whole
            }
        }
    }

    fn remember(&mut self, id: u64, identity: Identity, now: Instant) {
        if self.told.len() >= MOST {
            self.told
                .retain(|_, told| now.saturating_duration_since(told.at) < MEMORY);
        }
        if self.told.len() < MOST || self.told.contains_key(&identity) {
            let told = Told {
                id,
                at: now,
                latest: id,
                count: 0,
            };
            self.told.insert(identity, told);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::Cause;
    use crate::stack::Stack;

    #[test]
    fn the_same_within_a_minute_is_told_in_short_and_every_poll_in_one_way() {
        let (mut again, start) = (Again::default(), Instant::now());
        let stack = Stack::new(Vec::new(), None);
        let mut length = |id, function: &str, seconds| {
            let accusation = Accusation {
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
                is_over: false,
            };
            again.length(Some(&accusation), start + Duration::from_secs(seconds))
        };
        assert_eq!(length(1, "a", 0), Length::Whole);
        assert_eq!(length(1, "a", 1), Length::Whole, "its end");
        assert_eq!(length(2, "a", 2), Length::Short(1));
        assert_eq!(length(2, "a", 3), Length::Short(1), "its end");
        assert_eq!(length(3, "b", 3), Length::Whole, "another function");
        assert_eq!(length(4, "a", 59), Length::Short(2));
        assert_eq!(length(4, "a", 61), Length::Short(2), "its end, too");
        assert_eq!(length(5, "a", 62), Length::Whole);
        assert_eq!(length(6, "a", 63), Length::Short(1));
        assert_eq!(again.length(None, start), Length::Whole);
    }
}

//! Sums the time over budget of each culprit of one watchdog.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::culprit_sample::{CulpritSample, Identity};
use crate::clock::nanos_of;
use crate::counters::count_culprit;
use crate::report::{Culprit, Culprits, Frame, Stack};
use crate::watch::OTHER;

/// Culprits with sums of their own. The time of further ones goes to `other`.
pub(crate) const MAX_CULPRITS: usize = 1_000;
/// Stacks with sums of their own, for each culprit.
pub(crate) const MAX_STACKS: usize = 16;
/// Running polls whose counted time is remembered. Further ones are counted when they have ended.
const MAX_RUNNING: usize = 4_096;

/// The sums of one watchdog.
#[derive(Default)]
pub(crate) struct CulpritTotals {
    known: HashMap<Identity, CulpritEntry>,
    /// The counted time of each running poll.
    running: HashMap<u64, CountedTime>,
}

struct CountedTime {
    nanos: u64,
    culprits: Vec<Identity>,
}

struct CulpritEntry {
    culprit: Culprit,
    stacks: HashMap<Arc<str>, u64>,
}

impl CulpritTotals {
    pub(crate) fn add(&mut self, sample: &CulpritSample<'_>, now: SystemTime) {
        let identity = self.identity(sample);
        let Some((more, is_new)) = self.uncounted(sample, &identity) else {
            return;
        };
        count_culprit(&identity.watch, &identity.function, more);
        let entry = self.known.entry(identity);
        let entry = entry.or_insert_with_key(|identity| CulpritEntry::new(identity, now));
        entry.culprit.count += u64::from(is_new);
        entry.culprit.over_budget += Duration::from_nanos(more);
        entry.culprit.last_seen = now;
        entry.culprit.place = sample.place.as_deref().map(Arc::from);
        let stack = folded(sample).into();
        let has_room = entry.stacks.len() < MAX_STACKS || entry.stacks.contains_key(&stack);
        let stack = if has_room { stack } else { OTHER.into() };
        *entry.stacks.entry(stack).or_default() += more;
    }

    /// Returns the nanoseconds of a poll that are not counted yet, and whether this culprit is new for the poll.
    ///
    /// A poll that computes is seen in one function at one time and in another later. `None` if the poll is counted as
    /// a whole once it has ended.
    fn uncounted(
        &mut self,
        sample: &CulpritSample<'_>,
        identity: &Identity,
    ) -> Option<(u64, bool)> {
        let over_budget = nanos_of(sample.over_budget);
        let has_room = self.running.len() < MAX_RUNNING;
        let known = self.running.get_mut(&sample.id);
        let (counted, is_new) = known.as_ref().map_or((0, true), |known| {
            (known.nanos, !known.culprits.contains(identity))
        });
        match (known, sample.has_ended) {
            (_, true) => drop(self.running.remove(&sample.id)),
            (Some(known), false) => {
                known.nanos = over_budget.max(counted);
                known.culprits.extend(is_new.then(|| identity.clone()));
            }
            (None, false) if has_room => {
                let known = CountedTime {
                    nanos: over_budget,
                    culprits: vec![identity.clone()],
                };
                self.running.insert(sample.id, known);
            }
            (None, false) => return None,
        }
        Some((over_budget.saturating_sub(counted), is_new))
    }

    fn identity(&self, sample: &CulpritSample<'_>) -> Identity {
        let identity = sample.identity.clone();
        match self.known.len() < MAX_CULPRITS || self.known.contains_key(&identity) {
            true => identity,
            false => Identity {
                function: OTHER.into(),
                ..identity
            },
        }
    }

    pub(crate) fn culprits(&self) -> Culprits {
        let entries = self.known.values();
        let mut culprits: Vec<_> = entries.clone().map(|entry| entry.culprit.clone()).collect();
        culprits.sort_unstable_by(|a, b| {
            let by_name = || (&a.watch, &a.function).cmp(&(&b.watch, &b.function));
            (b.over_budget.cmp(&a.over_budget)).then_with(by_name)
        });
        let stacks = entries.flat_map(|entry| &entry.stacks);
        let mut stacks: Vec<_> = stacks
            .map(|(stack, nanos)| (Arc::clone(stack), *nanos))
            .collect();
        stacks.sort_unstable();
        Culprits { culprits, stacks }
    }
}

impl CulpritEntry {
    fn new(identity: &Identity, now: SystemTime) -> Self {
        Self {
            culprit: Culprit {
                watch: Arc::clone(&identity.watch),
                cause: identity.cause,
                function: Arc::clone(&identity.function),
                place: None,
                count: 0,
                over_budget: Duration::ZERO,
                last_seen: now,
            },
            stacks: HashMap::new(),
        }
    }
}

/// Folds a stack for flame-graph tools: from the outermost watch to the innermost function, joined by semicolons.
///
/// No part may contain a semicolon or a line break.
fn folded(sample: &CulpritSample<'_>) -> String {
    let watches = sample.path.iter().copied();
    let watches = watches.chain([&*sample.identity.watch]);
    let functions = functions(sample.stack);
    let parts = watches.chain(functions.iter().map(|name| &**name));
    let is_reserved = |c: char| c == ';' || c.is_control();
    let clean = |part: &str| part.replace(is_reserved, ":");
    without_final_number(parts.map(clean).collect::<Vec<_>>().join(";"))
}

/// Replaces the blank before a final number. The tools take a line with two numbers for a difference.
fn without_final_number(mut stack: String) -> String {
    let is_number = |c: char| c.is_ascii_digit() || ['.', '+'].contains(&c);
    let name = stack.trim_end().trim_end_matches(is_number);
    let blank = name.chars().last().filter(|c| c.is_whitespace());
    if let Some(blank) = blank {
        stack.replace_range(name.len() - blank.len_utf8()..name.len(), "_");
    }
    stack
}

/// Returns the program's functions, and the function that the innermost of them called; outermost first.
fn functions(stack: &Stack) -> Vec<Arc<str>> {
    let frames = stack.frames_of_poll();
    let called = frames.iter().position(|frame| !frame.is_foreign());
    let called = called.and_then(|own| frames.get(own.checked_sub(1)?));
    let own = frames.iter().filter(|frame| !frame.is_foreign());
    let mut functions: Vec<_> = called.into_iter().chain(own).map(Frame::name).collect();
    if functions.is_empty() {
        // The function of the standard library that was called, and all around it.
        let inside = frames.iter().take_while(|frame| frame.is_std()).count();
        let skipped = inside.saturating_sub(1);
        functions.extend(frames.iter().skip(skipped).map(Frame::name));
    }
    functions.reverse();
    functions
}

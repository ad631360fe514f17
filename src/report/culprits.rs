//! Culprits, added up.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::culprit::{Accusation, Culprit, Identity};
use crate::clock::nanos_of;
use crate::counters::count_culprit;
use crate::stack::{Frame, Stack};
use crate::text_table;

/// How many culprits are told apart, and stacks of each. What is beyond adds to the one called `other`.
pub(super) const MOST: usize = 1_000;
pub(super) const STACKS: usize = 16;
/// Of how many polls in flight it is remembered what was counted already.
const IN_FLIGHT: usize = 4_096;

const OTHER: &str = "other";

/// Which functions held the workers most. Made by [`Watchdog::culprits`](crate::Watchdog::culprits).
///
/// `Display` prints an aligned table, the worst first.
///
/// # Non-guarantees
///
/// What is added up are reports that carry a stack: not the polls that the limit of reports left out, nor
/// those that were over before anybody looked, nor what came faster than it can be looked up. At most 1,000 culprits are told apart, and 16 stacks of
/// each; what is beyond is `other`.
#[derive(Clone, Debug, Default)]
pub struct Culprits {
    culprits: Vec<Culprit>,
    /// Nanoseconds over budget by folded stack.
    stacks: Vec<(Arc<str>, u64)>,
}

impl Culprits {
    /// The worst first: by the time over their budgets.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Culprit> {
        self.culprits.iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.culprits.is_empty()
    }

    /// The stacks as the usual flame-graph tools read them: in each line the watches and functions from
    /// the outermost to the innermost, with semicolons between, and the microseconds over budget.
    ///
    /// # Examples
    ///
    /// ```
    /// # let watchdog = shotclock::Watchdog::builder().build()?;
    /// // As input for `inferno-flamegraph` or `flamegraph.pl`.
    /// std::fs::write(std::env::temp_dir().join("stacks.folded"), watchdog.culprits().folded())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn folded(&self) -> String {
        let mut text = String::new();
        for (stack, nanos) in &self.stacks {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{stack} {}", nanos / 1_000);
        }
        text
    }

    /// Each stack, folded, and for how long it was over budget.
    #[cfg(feature = "page")]
    pub(crate) fn stacks(&self) -> &[(Arc<str>, u64)] {
        &self.stacks
    }
}

impl fmt::Display for Culprits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings = ["culprit", "watch", "cause", "polls", "over budget"];
        let rows = self.iter().map(|culprit| {
            [
                // A name may hold a line break; a table may not.
                culprit.function.escape_debug().to_string(),
                culprit.watch.escape_debug().to_string(),
                culprit.cause.to_string(),
                culprit.count.to_string(),
                format!("{:.1?}", culprit.over_budget),
            ]
        });
        text_table::write(f, headings, rows)
    }
}

/// The book in which they are added up.
#[derive(Default)]
pub(super) struct CulpritBook {
    known: HashMap<Identity, Entry>,
    /// What was counted of each poll that had not ended.
    in_flight: HashMap<u64, SoFar>,
}

struct SoFar {
    /// Nanoseconds.
    counted: u64,
    culprits: Vec<Identity>,
}

struct Entry {
    culprit: Culprit,
    stacks: HashMap<Arc<str>, u64>,
}

impl CulpritBook {
    pub(super) fn note(&mut self, accusation: &Accusation<'_>, now: SystemTime) {
        let identity = self.identity(accusation);
        let Some((more, is_new)) = self.more(accusation, &identity) else {
            return;
        };
        count_culprit(&identity.watch, &identity.function, more);
        let entry = self.known.entry(identity);
        let entry = entry.or_insert_with_key(|identity| Entry::new(identity, now));
        entry.culprit.count += u64::from(is_new);
        entry.culprit.over_budget += Duration::from_nanos(more);
        entry.culprit.last_seen = now;
        entry.culprit.place = accusation.place.as_deref().map(Arc::from);
        let stack = folded(accusation).into();
        let has_room = entry.stacks.len() < STACKS || entry.stacks.contains_key(&stack);
        let stack = if has_room { stack } else { OTHER.into() };
        *entry.stacks.entry(stack).or_default() += more;
    }

    /// What is over budget of a poll since it was counted last, and whether this culprit is a new one of it:
    /// one that computes is seen now in one function and now in another. `None` if it is to be counted whole
    /// when it has ended.
    fn more(&mut self, accusation: &Accusation<'_>, identity: &Identity) -> Option<(u64, bool)> {
        let over_budget = nanos_of(accusation.over_budget);
        let has_room = self.in_flight.len() < IN_FLIGHT;
        let known = self.in_flight.get_mut(&accusation.id);
        let (counted, is_new) = known.as_ref().map_or((0, true), |known| {
            (known.counted, !known.culprits.contains(identity))
        });
        match (known, accusation.is_over) {
            (_, true) => drop(self.in_flight.remove(&accusation.id)),
            (Some(known), false) => {
                known.counted = over_budget.max(counted);
                known.culprits.extend(is_new.then(|| identity.clone()));
            }
            (None, false) if has_room => {
                let known = SoFar {
                    counted: over_budget,
                    culprits: vec![identity.clone()],
                };
                self.in_flight.insert(accusation.id, known);
            }
            (None, false) => return None,
        }
        Some((over_budget.saturating_sub(counted), is_new))
    }

    fn identity(&self, accusation: &Accusation<'_>) -> Identity {
        let identity = accusation.identity.clone();
        match self.known.len() < MOST || self.known.contains_key(&identity) {
            true => identity,
            false => Identity {
                function: OTHER.into(),
                ..identity
            },
        }
    }

    pub(super) fn read(&self) -> Culprits {
        let entries = self.known.values();
        let mut culprits: Vec<_> = entries.clone().map(|entry| entry.culprit.clone()).collect();
        culprits.sort_by(|a, b| {
            let by_name = || (&a.watch, &a.function).cmp(&(&b.watch, &b.function));
            (b.over_budget.cmp(&a.over_budget)).then_with(by_name)
        });
        let stacks = entries.flat_map(|entry| &entry.stacks);
        let mut stacks: Vec<_> = stacks
            .map(|(stack, nanos)| (Arc::clone(stack), *nanos))
            .collect();
        stacks.sort();
        Culprits { culprits, stacks }
    }
}

impl Entry {
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

/// From the outermost watch to the innermost function, with semicolons between, which therefore no part
/// may have, nor a line break.
fn folded(accusation: &Accusation<'_>) -> String {
    let watches = accusation.path.iter().copied();
    let watches = watches.chain([&*accusation.identity.watch]);
    let functions = functions(accusation.stack);
    let parts = watches.chain(functions.iter().map(|name| &**name));
    let is_taken = |c: char| c == ';' || c.is_control();
    let clean = |part: &str| part.replace(is_taken, ":");
    without_number(parts.map(clean).collect::<Vec<_>>().join(";"))
}

/// A stack that ends in a number of its own would have two of them, which the tools take for a
/// difference.
fn without_number(mut stack: String) -> String {
    let is_number = |c: char| c.is_ascii_digit() || ['.', '+'].contains(&c);
    let name = stack.trim_end().trim_end_matches(is_number);
    let blank = name.chars().last().filter(|c| c.is_whitespace());
    if let Some(blank) = blank {
        stack.replace_range(name.len() - blank.len_utf8()..name.len(), "_");
    }
    stack
}

/// The program's own, and the innermost of the libraries' that it called; from the outermost on.
fn functions(stack: &Stack) -> Vec<Arc<str>> {
    let frames = stack.frames_of_poll();
    let called = frames.iter().position(|frame| !frame.is_foreign());
    let called = called.and_then(|own| frames.get(own.checked_sub(1)?));
    let own = frames.iter().filter(|frame| !frame.is_foreign());
    let mut functions: Vec<_> = called.into_iter().chain(own).map(Frame::name).collect();
    if functions.is_empty() {
        // From the function of the standard library that was called, outwards.
        let inside = frames.iter().take_while(|frame| frame.is_std()).count();
        let skipped = inside.saturating_sub(1);
        functions.extend(frames.iter().skip(skipped).map(Frame::name));
    }
    functions.reverse();
    functions
}

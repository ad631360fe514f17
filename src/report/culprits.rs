//! Culprits, added up.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::culprit::{Accusation, Culprit, Identity};
use crate::clock::nanos_of;
use crate::columns;
use crate::counts::count_culprit;
use crate::stack::{Frame, Stack};

/// How many culprits are told apart, and stacks of each. What is beyond adds to the one called `other`.
const MOST: usize = 1_000;
const STACKS: usize = 16;
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
/// those that were over before anybody looked. At most 1,000 culprits are told apart, and 16 stacks of
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
        columns::write(f, headings, rows)
    }
}

/// The book in which they are added up.
#[derive(Default)]
pub(super) struct CulpritBook {
    known: HashMap<Identity, Entry>,
    /// What was counted of each poll that had not ended, in nanoseconds.
    so_far: HashMap<u64, u64>,
}

struct Entry {
    culprit: Culprit,
    stacks: HashMap<Arc<str>, u64>,
}

impl CulpritBook {
    pub(super) fn note(&mut self, accusation: &Accusation<'_>, now: SystemTime) {
        let over_budget = nanos_of(accusation.over_budget);
        let counted = self.so_far.get(&accusation.id).copied();
        let more = over_budget.saturating_sub(counted.unwrap_or_default());
        if accusation.is_over {
            self.so_far.remove(&accusation.id);
        } else if counted.is_some() || self.so_far.len() < IN_FLIGHT {
            self.so_far.insert(accusation.id, over_budget);
        } else {
            // It is counted whole when it has ended.
            return;
        }
        let identity = self.identity(accusation);
        count_culprit(&identity.watch, &identity.function, more);
        let entry = self.known.entry(identity);
        let entry = entry.or_insert_with_key(|identity| Entry::new(identity, now));
        entry.culprit.count += u64::from(counted.is_none());
        entry.culprit.over_budget += Duration::from_nanos(more);
        entry.culprit.last_seen = now;
        entry.culprit.place = accusation.place.as_deref().map(Arc::from);
        let stack = folded(accusation).into();
        let has_room = entry.stacks.len() < STACKS || entry.stacks.contains_key(&stack);
        let stack = if has_room { stack } else { OTHER.into() };
        *entry.stacks.entry(stack).or_default() += more;
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
    let clean = |part: &str| part.replace([';', '\n', '\r'], ":");
    parts.map(clean).collect::<Vec<_>>().join(";")
}

/// The program's own, and the innermost of the libraries' that it called; from the outermost on.
fn functions(stack: &Stack) -> Vec<Arc<str>> {
    let frames = stack.frames_of_poll();
    let called = frames.iter().position(|frame| !frame.is_foreign());
    let called = called.and_then(|own| frames.get(own.checked_sub(1)?));
    let own = frames.iter().filter(|frame| !frame.is_foreign());
    let mut functions: Vec<_> = called.into_iter().chain(own).map(Frame::name).collect();
    if functions.is_empty() {
        functions.extend(frames.iter().map(Frame::name));
    }
    functions.reverse();
    functions
}

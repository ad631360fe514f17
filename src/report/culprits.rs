//! The functions that held workers past their budgets.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Cause;
use crate::text_table;

/// Names a function that held a worker past its budget, with the number of polls and the time.
///
/// [`Watchdog::culprits`](crate::Watchdog::culprits) makes it. `Display` prints one line.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Culprit {
    /// The name of the watch. For a worker of a guarded runtime, `worker of` and the name of the runtime.
    pub watch: Arc<str>,
    /// Why the polls were slow.
    pub cause: Cause,
    /// The innermost function of the program on the stack.
    ///
    /// If the compiler inlined all of these, it is the function of the standard library that the program called, or
    /// else the innermost of all. Without a symbol, it is the file name of the program or library.
    pub function: Arc<str>,
    /// The source file and line in that function at the last report, if the program has debug information.
    pub place: Option<Arc<str>>,
    /// The number of polls.
    pub count: u64,
    /// The sum of the time over budget until the last scan saw the polls there. A poll that computes may have several
    /// culprits, which share its time.
    pub over_budget: Duration,
    /// The time of the last report.
    pub last_seen: SystemTime,
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            watch,
            cause,
            function,
            count,
            over_budget,
            ..
        } = self;
        write!(f, "{function} of {watch:?}: {count} times, ")?;
        write!(f, "{over_budget:.1?} over budget, {cause}")?;
        match &self.place {
            Some(place) => write!(f, " ({place})"),
            None => Ok(()),
        }
    }
}

/// Lists the functions that held workers past their budgets, the worst first.
///
/// [`Watchdog::culprits`](crate::Watchdog::culprits) makes it. `Display` prints an aligned table.
///
/// # Non-guarantees
///
/// The sums cover reports with a stack. They leave out polls that the rate limit suppressed, and polls that ended
/// before a scan saw them. They also leave out reports that arrived faster than their names could be looked up. The
/// list tells at most 1,000 culprits apart, and 16 stacks of each. The rest is `other`.
#[derive(Clone, Debug, Default)]
pub struct Culprits {
    pub(crate) culprits: Vec<Culprit>,
    /// Nanoseconds over budget by folded stack.
    pub(crate) stacks: Vec<(Arc<str>, u64)>,
}

impl Culprits {
    /// Iterates over the culprits: those with the most time over budget first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Culprit> {
        self.culprits.iter()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.culprits.is_empty()
    }

    /// Returns the stacks in the format of the usual flame-graph tools.
    ///
    /// Each line has the watches and functions from the outermost to the innermost, separated by semicolons, and then
    /// the microseconds over budget.
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
}

impl fmt::Display for Culprits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings = ["culprit", "watch", "cause", "polls", "over budget"];
        let rows = self.iter().map(|culprit| {
            [
                // A name may hold a line break, and a line of a table must not.
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

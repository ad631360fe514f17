//! What a test says that fails because of a slow poll.

use std::fmt;
use std::time::Duration;

use super::records::AuditRecord;
use super::sentinel_hook::HOOK;
use super::text;
use crate::report::SlowPoll;

/// Polls over their budget.
pub(super) struct Failure<'a> {
    message: Option<&'a str>,
    book: &'a AuditRecord,
    over: usize,
    worst: SlowPoll,
}

impl<'a> Failure<'a> {
    /// `None` if every poll kept to its budget, or one panicked.
    pub(super) fn of(book: &'a AuditRecord, message: Option<&'a str>) -> Option<Self> {
        let over = book.count_over(book.budget);
        let worst = book.worst().filter(|_| over > 0 && !book.has_panicked)?;
        Some(Self {
            message,
            book,
            over,
            worst,
        })
    }

    /// What of its own time is not held against the poll.
    fn allowed(&self) -> Option<Duration> {
        let poll = self.book.worst.as_ref()?.poll;
        (poll.active > poll.charged).then(|| poll.active - poll.charged)
    }

    fn write_judged(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SlowPoll {
            elapsed,
            charged: own,
            split,
            ..
        } = &self.worst;
        match split {
            Some(split) => {
                write!(
                    f,
                    "\n  own time   {own:.1?}, which is held against the budget"
                )?;
                if let Some(allowed) = self.allowed() {
                    write!(f, ", and {allowed:.1?} that was declared to be allowed")?;
                }
                write!(
                    f,
                    "\n  by wall    {elapsed:.1?} = {:.1?} on a processor + {:.1?} blocked + {:.1?} \
                     waiting for a processor",
                    split.on_cpu, split.blocked, split.starved
                )
            }
            None => write!(
                f,
                "\n  by wall    {elapsed:.1?}, which is held against the budget, because the system \
                 does not tell how long the thread waited for a processor"
            ),
        }
    }

    fn write_stack(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.worst.stack, &HOOK.stacks) {
            (Some(stack), _) => write!(f, "\n  stack, taken while the poll ran:\n{stack}"),
            (None, Err(why)) => write!(f, "\n  stack      none: {why}"),
            (None, Ok(())) => f.write_str(
                "\n  stack      none: the poll ended before its thread was asked, or had answered",
            ),
        }
    }
}

impl fmt::Display for Failure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            book, over, worst, ..
        } = self;
        let (budget, polls) = (book.budget, book.polls.len());
        let number = book.worst.as_ref().map_or(0, |worst| worst.index + 1);
        if let Some(message) = self.message {
            writeln!(f, "{message}")?;
        }
        write!(
            f,
            "poll {number} of {polls} took {:.1?}, budget {budget:?}",
            worst.charged
        )?;
        if *over > 1 {
            write!(f, " (the longest of {over} polls over it)")?;
        }
        self.write_judged(f)?;
        write!(f, "\n  cause      {}", worst.cause)?;
        if let Some(waits_for) = &worst.waiting_on {
            write!(f, ", waits for {}", waits_for.escape_debug())?;
        }
        write!(f, "\n  hint       {}", worst.hint())?;
        write!(f, "\n  asserted   {}", book.location)?;
        write!(f, "\n  future     {}", book.origin)?;
        write!(f, "\n  thread     {}", worst.thread)?;
        self.write_stack(f)?;
        write!(f, "\n\n")?;
        text::write(f, book)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(book: &AuditRecord, message: Option<&str>) -> String {
        let failure = Failure::of(book, message).unwrap().to_string();
        let (text, table) = failure.split_once("\n\n").unwrap();
        assert!(
            table.contains("own time") || table.contains("by wall"),
            "{table}"
        );
        text.to_owned()
    }

    #[test]
    fn no_poll_over_the_budget_is_no_failure() {
        assert!(Failure::of(&AuditRecord::fabricated(&[]), None).is_none());
        assert!(Failure::of(&AuditRecord::fabricated(&[(90, 5), (5, 5)]), None).is_none());
    }

    #[test]
    fn a_failure_says_which_poll_and_how_its_time_divides() {
        let book = AuditRecord::fabricated(&[(1, 1), (20, 8), (7, 6)]);
        let text = text(&book, Some("the checkout hogs its worker"));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "the checkout hogs its worker");
        assert_eq!(
            lines[1..5],
            [
                "poll 2 of 3 took 8.0ms, budget 5ms (the longest of 2 polls over it)",
                "  own time   8.0ms, which is held against the budget",
                "  by wall    20.0ms = 8.0ms on a processor + 0.0ns blocked + 12.0ms waiting for a \
                 processor",
                "  cause      computing",
            ]
        );
        assert!(lines[5].starts_with("  hint       computing: yield in long loops"));
        assert_eq!(lines[6], format!("  asserted   {}", book.location));
        assert!(lines[7].starts_with("  future     core::future::ready::Ready<()>"));
        assert!(lines[8].starts_with("  thread     testing::failure::tests::"));
        assert!(lines[9].starts_with("  stack      none: "));
    }

    #[test]
    fn what_was_allowed_is_told_beside_what_was_not() {
        let mut book = AuditRecord::fabricated(&[(20, 18)]);
        let worst = book.worst.as_mut().unwrap();
        worst.poll.charged = Duration::from_millis(8);
        book.polls[0] = worst.poll;
        assert_eq!(
            text(&book, None).lines().nth(1),
            Some(
                "  own time   8.0ms, which is held against the budget, and 10.0ms that was declared to \
                 be allowed"
            )
        );
    }

    #[test]
    fn where_only_the_wall_is_known_the_failure_says_so() {
        let mut book = AuditRecord::fabricated(&[(6, 6)]);
        book.has_wall_time_only = true;
        book.worst.as_mut().unwrap().split = None;
        let text = text(&book, None);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "poll 1 of 1 took 6.0ms, budget 5ms");
        assert_eq!(
            lines[1],
            "  by wall    6.0ms, which is held against the budget, because the system does not tell \
             how long the thread waited for a processor"
        );
        assert_eq!(lines[2], "  cause      unknown");
    }
}

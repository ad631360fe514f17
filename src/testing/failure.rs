//! The message of a test that fails because of a slow poll.

use std::fmt;
use std::time::Duration;

use super::records::AuditRecord;
use super::sentinel_hook::HOOK;
use super::text;
use crate::report::SlowPoll;

/// Polls over their budget.
pub(super) struct Failure<'a> {
    message: Option<&'a str>,
    record: &'a AuditRecord,
    over: usize,
    worst: SlowPoll,
}

impl<'a> Failure<'a> {
    /// Returns `None` if no poll was over its budget, or if one panicked.
    pub(super) fn of(record: &'a AuditRecord, message: Option<&'a str>) -> Option<Self> {
        let over = record.count_over(record.budget);
        let worst = record
            .worst()
            .filter(|_| over > 0 && !record.has_panicked)?;
        Some(Self {
            message,
            record,
            over,
            worst,
        })
    }

    /// Returns the active time that the poll is not charged for.
    fn allowed(&self) -> Option<Duration> {
        let poll = self.record.worst.as_ref()?.poll;
        (poll.active > poll.charged).then(|| poll.active - poll.charged)
    }

    fn write_times(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SlowPoll {
            elapsed,
            charged,
            split,
            ..
        } = &self.worst;
        match split {
            Some(split) => {
                write!(f, "\n  charged    {charged:.1?}")?;
                if let Some(allowed) = self.allowed() {
                    write!(f, ", without {allowed:.1?} under allow_blocking")?;
                }
                write!(
                    f,
                    "\n  elapsed    {elapsed:.1?} = {:.1?} on cpu + {:.1?} blocked + {:.1?} starved",
                    split.on_cpu, split.blocked, split.starved
                )
            }
            None => write!(
                f,
                "\n  elapsed    {elapsed:.1?}, all of it charged: the system does not count the time \
                 on the run queue"
            ),
        }
    }

    fn write_stack(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.worst.stack, &HOOK.stacks) {
            (Some(stack), _) => write!(f, "\n  stack, captured while the poll ran:\n{stack}"),
            (None, Err(why)) => write!(f, "\n  stack      none: {why}"),
            (None, Ok(())) => {
                f.write_str("\n  stack      none: the poll ended before its thread answered")
            }
        }
    }
}

impl fmt::Display for Failure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            record,
            over,
            worst,
            ..
        } = self;
        let (budget, polls) = (record.budget, record.polls.len());
        let number = record.worst.as_ref().map_or(0, |worst| worst.index + 1);
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
        self.write_times(f)?;
        write!(f, "\n  cause      {}", worst.cause)?;
        if let Some(waiting_on) = &worst.waiting_on {
            write!(f, ", waiting on {}", waiting_on.escape_debug())?;
        }
        write!(f, "\n  hint       {}", worst.hint())?;
        write!(f, "\n  asserted   {}", record.location)?;
        write!(f, "\n  future     {}", record.origin)?;
        write!(f, "\n  thread     {}", worst.thread)?;
        self.write_stack(f)?;
        write!(f, "\n\n")?;
        text::write(f, record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(record: &AuditRecord, message: Option<&str>) -> String {
        let failure = Failure::of(record, message).unwrap().to_string();
        let (text, table) = failure.split_once("\n\n").unwrap();
        assert!(
            table.contains("active") || table.contains("elapsed"),
            "{table}"
        );
        text.to_owned()
    }

    #[test]
    fn failure_without_a_poll_over_the_budget_is_none() {
        assert!(Failure::of(&AuditRecord::fabricated(&[]), None).is_none());
        assert!(Failure::of(&AuditRecord::fabricated(&[(90, 5), (5, 5)]), None).is_none());
    }

    #[test]
    fn display_names_the_poll_and_divides_its_time() {
        let record = AuditRecord::fabricated(&[(1, 1), (20, 8), (7, 6)]);
        let text = text(&record, Some("the checkout blocks its worker"));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "the checkout blocks its worker");
        assert_eq!(
            lines[1..5],
            [
                "poll 2 of 3 took 8.0ms, budget 5ms (the longest of 2 polls over it)",
                "  charged    8.0ms",
                "  elapsed    20.0ms = 8.0ms on cpu + 0.0ns blocked + 12.0ms starved",
                "  cause      computing",
            ]
        );
        assert!(lines[5].starts_with("  hint       computing: yield in long loops"));
        assert_eq!(lines[6], format!("  asserted   {}", record.location));
        assert!(lines[7].starts_with("  future     core::future::ready::Ready<()>"));
        assert!(lines[8].starts_with("  thread     testing::failure::tests::"));
        assert!(lines[9].starts_with("  stack      none: "));
    }

    #[test]
    fn display_with_allowed_time_names_it() {
        let mut record = AuditRecord::fabricated(&[(20, 18)]);
        let worst = record.worst.as_mut().unwrap();
        worst.poll.charged = Duration::from_millis(8);
        record.polls[0] = worst.poll;
        assert_eq!(
            text(&record, None).lines().nth(1),
            Some("  charged    8.0ms, without 10.0ms under allow_blocking")
        );
    }

    #[test]
    fn display_without_cpu_samples_says_so() {
        let mut record = AuditRecord::fabricated(&[(6, 6)]);
        record.has_wall_time_only = true;
        record.worst.as_mut().unwrap().split = None;
        let text = text(&record, None);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "poll 1 of 1 took 6.0ms, budget 5ms");
        assert_eq!(
            lines[1],
            "  elapsed    6.0ms, all of it charged: the system does not count the time on the run queue"
        );
        assert_eq!(lines[2], "  cause      unknown");
    }
}

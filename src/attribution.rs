//! Floor 1: from the accounts of a thread to whose fault it was. Arithmetic, and nothing else.
//!
//! Wall time is processor time, plus the wait for a processor, plus what a hypervisor stole, plus what the
//! thread waited for of its own accord. The operating system accounts for the first two, and gives a bound
//! of the third. The fourth is what is left.
//!
//! Blamed is only what cannot be otherwise. An account begins where somebody looked, which is before
//! the poll began or after. Each gives a lower bound of the time that was the poll's own:
//!
//! - one from before: the whole of the poll, less all the waiting since then, which may have been
//!   before it;
//! - one from within: what came after it, less the waiting in there.
//!
//! The larger of the two is held against the budget.

use crate::report::TimeBreakdown;

/// What the operating system has accounted to a thread at one moment. Nanoseconds since it began;
/// what is not known is not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct CpuSample {
    /// When at the earliest, as a raw reading of the clock. 0 stands for the beginning of the thread.
    pub(crate) at: u64,
    /// And at the latest: who takes it may be interrupted between the clock and the account.
    pub(crate) by: u64,
    pub(crate) cpu: Option<u64>,
    /// For a processor.
    pub(crate) wait: Option<u64>,
}

impl CpuSample {
    /// Of a thread that has just begun.
    pub(crate) const BIRTH: Self = Self {
        at: 0,
        by: 0,
        cpu: Some(0),
        wait: Some(0),
    };
}

/// The accounts between which a poll lies, or of which it holds the first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct CpuSamples {
    /// The last one before the poll.
    pub(crate) before: CpuSample,
    /// The first one within.
    pub(crate) within: Option<CpuSample>,
    pub(crate) now: CpuSample,
}

/// One poll at one moment. Nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct AttributionInput {
    pub(crate) elapsed: u64,
    /// What is held against the budget by the wall.
    pub(crate) charged: u64,
    pub(crate) budget: u64,
    /// Of `elapsed`, what came after the account from within.
    pub(crate) since_within: u64,
    /// How long the account from before was taken before the poll began.
    pub(crate) before_start: u64,
    /// For so long the whole process was not run meanwhile.
    pub(crate) suspended: u64,
    /// How long, at most, a hypervisor did not run the thread's processor: see [`steal`](crate::stolen_time).
    pub(crate) stolen: u64,
    /// For so long the sentinel was late that was to look.
    pub(crate) delayed: u64,
    /// Whether it looked past the budget all the same.
    pub(crate) was_seen: bool,
    /// Whether the thread waits for a processor at this very moment, which is in no account yet.
    pub(crate) waits_now: bool,
}

/// Whose fault it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attribution {
    /// The code's, which used the processor.
    Computing,
    /// The code's, which waited.
    Blocked,
    /// The code's, as far as is known.
    Unknown,
    Starved,
    Suspended,
}

/// Waits shorter than this are not told from the cost of waking up, and a poll that is shorter as a
/// whole was hardly interrupted: the scheduler's slices are longer.
pub(crate) const MIN_NANOS: u64 = 1_000_000;

/// A poll with none of these was not looked at by anybody.
pub(crate) fn attribute(
    case: AttributionInput,
    accounts: Option<&CpuSamples>,
) -> (Attribution, Option<TimeBreakdown>) {
    let Some(accounts) = accounts.filter(|_| case.elapsed >= MIN_NANOS) else {
        return (Attribution::Unknown, None);
    };
    let split = accounts.split(&case);
    let fault = if case.charged.saturating_sub(case.suspended) <= case.budget {
        Attribution::Suspended
    } else if accounts
        .charged(&case)
        .is_some_and(|own| own <= case.budget)
    {
        Attribution::Starved
    } else {
        accounts.kind(&case, split.as_ref())
    };
    (fault, split)
}

/// How much of the time that is held against a poll is surely its own, in nanoseconds.
pub(crate) fn charged_nanos(case: AttributionInput, accounts: Option<&CpuSamples>) -> u64 {
    let by_wall = case.charged.saturating_sub(case.suspended);
    let accounts = accounts.filter(|_| case.elapsed >= MIN_NANOS);
    let accounted = accounts.and_then(|accounts| accounts.charged(&case));
    accounted.map_or(by_wall, |own| own.min(by_wall))
}

/// What the code did for most of the time in which it was looked at.
pub(crate) fn dominant(split: Option<&TimeBreakdown>) -> Attribution {
    match split {
        None => Attribution::Unknown,
        Some(split) if split.on_cpu >= split.blocked => Attribution::Computing,
        Some(_) => Attribution::Blocked,
    }
}

impl CpuSamples {
    /// From when on what came after the account from within is looked at: not from before it was taken,
    /// or the waiting between the two would be in neither.
    pub(crate) fn within_since(&self) -> Option<u64> {
        Some(self.within?.by)
    }

    /// The larger of the two lower bounds. `None` if the waiting is not accounted for.
    fn charged(&self, case: &AttributionInput) -> Option<u64> {
        let (whole, part) = self.bounds(case);
        whole.max(part)
    }

    /// Of the whole of the poll, and of the part that was looked at.
    fn bounds(&self, case: &AttributionInput) -> (Option<u64>, Option<u64>) {
        // What was not the poll's own by the wall is not its own here either.
        let others = case.elapsed.saturating_sub(case.charged);
        let others = others.saturating_add(case.suspended);
        let others = others.saturating_add(case.stolen);
        let bound = |since: &CpuSample, wall: u64, outside: u64| {
            let most = if case.waits_now {
                // Everything that is not accounted may be the waiting of this moment, and what ran
                // may have run before the poll.
                ran(since, &self.now)?.saturating_sub(outside)
            } else {
                wall.saturating_sub(waited(since, &self.now)?)
            };
            Some(most.saturating_sub(others))
        };
        let whole = bound(&self.before, case.elapsed, case.before_start);
        let part = self
            .within
            .and_then(|within| bound(&within, case.since_within, 0));
        // What nobody saw may have been the wait for a lock, and who had the lock was not run either.
        let seen = |own: u64| own.saturating_sub(case.delayed);
        match case.was_seen {
            true => (whole.map(seen), part),
            false => (whole.map(seen), part.map(seen)),
        }
    }

    /// What the code did for most of the time that was its own.
    fn kind(&self, case: &AttributionInput, split: Option<&TimeBreakdown>) -> Attribution {
        match self.was_blocked_unseen(case) {
            true => Attribution::Blocked,
            false => dominant(split),
        }
    }

    /// Whether what is held against it came before the part that was looked at, and was no computing: of
    /// that there was not enough on the processor.
    fn was_blocked_unseen(&self, case: &AttributionInput) -> bool {
        let (whole, part) = self.bounds(case);
        let ran = ran(&self.before, &self.now);
        let is_unseen = part.is_none_or(|part| part <= case.budget);
        is_unseen && whole.zip(ran).is_some_and(|(own, ran)| ran < own / 2)
    }

    fn split(&self, case: &AttributionInput) -> Option<TimeBreakdown> {
        // Of next to nothing there is no division.
        let within = self.within.filter(|_| case.since_within >= MIN_NANOS)?;
        let wall = case.since_within;
        let on_cpu = ran(&within, &self.now)?.min(wall);
        let waited = waited(&within, &self.now)?.min(wall - on_cpu);
        let rest = wall - on_cpu - waited;
        let not_run = match case.waits_now {
            true => rest,
            false => case.stolen.min(rest),
        };
        Some(TimeBreakdown::from_nanos(
            on_cpu,
            rest - not_run,
            waited + not_run,
        ))
    }
}

fn ran(since: &CpuSample, now: &CpuSample) -> Option<u64> {
    Some(now.cpu?.saturating_sub(since.cpu?))
}

fn waited(since: &CpuSample, now: &CpuSample) -> Option<u64> {
    Some(now.wait?.saturating_sub(since.wait?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn account(cpu: u64, wait: u64) -> CpuSample {
        CpuSample {
            at: 0,
            by: 0,
            cpu: Some(cpu * MS),
            wait: Some(wait * MS),
        }
    }

    /// A poll of 30 ms under a budget of 10, seen first when it was 5 ms old.
    fn case() -> AttributionInput {
        AttributionInput {
            elapsed: 30 * MS,
            charged: 30 * MS,
            budget: 10 * MS,
            since_within: 25 * MS,
            before_start: 5 * MS,
            suspended: 0,
            stolen: 0,
            delayed: 0,
            was_seen: true,
            waits_now: false,
        }
    }

    fn fault(
        case: AttributionInput,
        before: CpuSample,
        within: Option<CpuSample>,
        now: CpuSample,
    ) -> Attribution {
        let accounts = CpuSamples {
            before,
            within,
            now,
        };
        attribute(case, Some(&accounts)).0
    }

    #[test]
    fn what_the_accounts_say_is_the_cause() {
        let (before, within) = (account(100, 50), account(103, 51));
        let within = Some(within);
        assert_eq!(
            fault(case(), before, within, account(127, 52)),
            Attribution::Computing
        );
        assert_eq!(
            fault(case(), before, within, account(104, 52)),
            Attribution::Blocked
        );
        assert_eq!(
            fault(case(), before, within, account(104, 75)),
            Attribution::Starved
        );
    }

    #[test]
    fn charged_time_is_less_what_was_waited_for_a_processor_or_suspended() {
        let charged = |case, now| {
            let accounts = CpuSamples {
                before: account(100, 50),
                within: None,
                now,
            };
            (
                charged_nanos(case, Some(&accounts)),
                charged_nanos(case, None),
            )
        };
        assert_eq!(charged(case(), account(127, 50)), (30 * MS, 30 * MS));
        assert_eq!(charged(case(), account(104, 62)), (18 * MS, 30 * MS));
        let suspended = AttributionInput {
            suspended: 5 * MS,
            ..case()
        };
        assert_eq!(charged(suspended, account(104, 62)), (13 * MS, 25 * MS));
        assert_eq!(charged(case(), account(104, 90)), (0, 30 * MS));
    }

    #[test]
    fn waiting_that_may_have_been_before_the_poll_is_in_its_favour_unless_seen_within() {
        let before = account(100, 0);
        let now = account(125, 1_000);
        assert_eq!(fault(case(), before, None, now), Attribution::Starved);
        let within = Some(account(103, 1_000));
        assert_eq!(fault(case(), before, within, now), Attribution::Computing);
    }

    #[test]
    fn what_nobody_saw_while_the_sentinel_was_late_is_held_against_nobody() {
        let (before, now) = (account(100, 50), account(101, 52));
        let within = Some(account(100, 50));
        let fault = |delayed, was_seen, within| {
            let case = AttributionInput {
                delayed: delayed * MS,
                was_seen,
                ..case()
            };
            fault(case, before, within, now)
        };
        assert_eq!(fault(17, false, None), Attribution::Blocked);
        assert_eq!(fault(18, false, None), Attribution::Starved);
        assert_eq!(fault(12, false, within), Attribution::Blocked);
        assert_eq!(fault(18, false, within), Attribution::Starved);
        assert_eq!(fault(99, true, within), Attribution::Blocked);
    }

    #[test]
    fn what_was_not_seen_is_no_computing_without_a_processor() {
        // It waited for a processor in all of the time in which it was looked at.
        let before = account(100, 50);
        let late = AttributionInput {
            since_within: 15 * MS,
            ..case()
        };
        let (within, now) = (account(100, 50), account(101, 65));
        assert_eq!(fault(late, before, Some(within), now), Attribution::Blocked);
        let (within, now) = (account(114, 50), account(115, 65));
        assert_eq!(
            fault(late, before, Some(within), now),
            Attribution::Computing
        );
    }

    #[test]
    fn who_waits_for_a_processor_at_this_moment_is_not_blocked() {
        let (before, within) = (account(100, 50), Some(account(103, 50)));
        let waits_now = AttributionInput {
            waits_now: true,
            ..case()
        };
        let now = account(104, 50);
        assert_eq!(fault(waits_now, before, within, now), Attribution::Starved);
        // What ran may have run before the poll.
        assert_eq!(
            fault(waits_now, account(85, 50), None, account(100, 50)),
            Attribution::Starved
        );
        assert_eq!(
            fault(waits_now, account(84, 50), None, account(100, 50)),
            Attribution::Unknown
        );
        // Enough was on the processor before it began to wait.
        let now = account(115, 50);
        assert_eq!(
            fault(waits_now, before, within, now),
            Attribution::Computing
        );
    }

    #[test]
    fn time_in_which_nothing_ran_is_not_held_against_anybody() {
        let (before, within) = (account(100, 50), Some(account(103, 50)));
        let suspended = |suspended| AttributionInput {
            suspended,
            ..case()
        };
        let now = account(104, 50);
        assert_eq!(
            fault(suspended(25 * MS), before, within, now),
            Attribution::Suspended
        );
        assert_eq!(
            fault(suspended(5 * MS), before, within, now),
            Attribution::Blocked
        );
    }

    #[test]
    fn what_may_have_been_stolen_is_not_held_against_the_code() {
        let (before, within) = (account(100, 50), Some(account(100, 50)));
        let stolen = |stolen| AttributionInput {
            stolen: stolen * MS,
            ..case()
        };
        // Neither run nor waiting: it slept, or its processor was stolen.
        let now = account(101, 52);
        assert_eq!(fault(stolen(17), before, within, now), Attribution::Blocked);
        assert_eq!(fault(stolen(18), before, within, now), Attribution::Starved);
        // And what ran as it may have been, where the kernel counts stolen time as run.
        let now = account(128, 52);
        assert_eq!(
            fault(stolen(17), before, within, now),
            Attribution::Computing
        );
        assert_eq!(fault(stolen(18), before, within, now), Attribution::Starved);
    }

    /// Every division of a poll of a few milliseconds into what ran, waited, was stolen and slept: it is reported
    /// only if what ran and slept is over the budget, and surely if nothing was stolen or waited.
    #[test]
    fn in_small_every_division_of_a_poll_is_judged_by_what_was_its_own() {
        const WALL: u64 = 8;
        let divisions = (0..=WALL).flat_map(|ran| {
            (0..=WALL - ran).flat_map(move |waited| {
                (0..=WALL - ran - waited).map(move |stolen| [ran, waited, stolen])
            })
        });
        for ([ran, waited, stolen], budget) in
            divisions.flat_map(|division| (0..WALL).map(move |budget| (division, budget)))
        {
            let case = AttributionInput {
                elapsed: WALL * MS,
                charged: WALL * MS,
                budget: budget * MS,
                since_within: WALL * MS,
                before_start: 0,
                stolen: stolen * MS,
                ..case()
            };
            let (before, now) = (account(0, 0), account(ran, waited));
            let accounts = CpuSamples {
                before,
                within: Some(before),
                now,
            };
            let (fault, split) = attribute(case, Some(&accounts));
            let own = WALL - waited - stolen;
            assert_eq!(
                fault == Attribution::Starved,
                own <= budget,
                "{case:?} {ran}"
            );
            let slept = own - ran;
            let split_of = TimeBreakdown::from_nanos(ran * MS, slept * MS, (waited + stolen) * MS);
            assert_eq!(split, Some(split_of));
        }
    }

    #[test]
    fn what_is_not_known_is_not_zero() {
        let unknown = CpuSample {
            at: 0,
            by: 0,
            cpu: None,
            wait: None,
        };
        assert_eq!(fault(case(), unknown, None, unknown), Attribution::Unknown);
        assert_eq!(attribute(case(), None), (Attribution::Unknown, None));
        let cpu_only = CpuSample {
            cpu: Some(120 * MS),
            ..unknown
        };
        assert_eq!(
            fault(case(), account(100, 0), None, cpu_only),
            Attribution::Unknown
        );
    }

    #[test]
    fn the_time_of_blamed_polls_inside_is_not_the_polls_own() {
        let nested = AttributionInput {
            charged: 12 * MS,
            ..case()
        };
        let (before, within) = (account(100, 50), Some(account(103, 50)));
        assert_eq!(
            fault(nested, before, within, account(128, 53)),
            Attribution::Starved
        );
        assert_eq!(
            fault(nested, before, within, account(130, 51)),
            Attribution::Computing
        );
    }

    #[test]
    fn the_split_adds_up() {
        let accounts = CpuSamples {
            before: account(0, 0),
            within: Some(account(3, 1)),
            now: account(10, 6),
        };
        let (_, split) = attribute(case(), Some(&accounts));
        let split = split.unwrap();
        assert_eq!(split, TimeBreakdown::from_nanos(7 * MS, 13 * MS, 5 * MS));
        assert_eq!(split.observed().as_nanos() as u64, case().since_within);
        assert_eq!(
            split.to_string(),
            "7.0ms on cpu, 13.0ms blocked, 5.0ms starved"
        );
    }
}

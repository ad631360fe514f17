//! Floor 1: decides from CPU samples which part of a poll to charge, and to which cause. It is arithmetic only.
//!
//! Wall time has four parts: CPU time, the wait on the run queue, time that a hypervisor stole, and the wait of the thread
//! itself. The operating system counts the first two, and gives a bound of the third. The fourth is the rest.
//!
//! The poll is charged only for time that is certainly its own. A sample was taken before the poll began, or within it.
//! Each gives a lower bound of the charged time:
//!
//! - a sample from before: the whole poll, without all run-queue wait since the sample, some of which may have been before
//!   the poll;
//! - a sample from within: the part after the sample, without the run-queue wait in that part.
//!
//! The larger of the two counts against the budget.

use crate::report::TimeBreakdown;

/// The times that the operating system has counted for a thread, in nanoseconds since its begin. An unknown time is `None`,
/// and not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct CpuSample {
    /// The earliest possible time of the sample, as a raw reading of the clock. 0 is the begin of the thread.
    pub(crate) at: u64,
    /// The latest possible time. The sampling thread may be interrupted between the clock and the sample.
    pub(crate) by: u64,
    pub(crate) cpu: Option<u64>,
    /// The wait on the run queue.
    pub(crate) wait: Option<u64>,
}

impl CpuSample {
    /// The sample of a thread at its begin.
    pub(crate) const BIRTH: Self = Self {
        at: 0,
        by: 0,
        cpu: Some(0),
        wait: Some(0),
    };
}

/// The samples around and within a poll.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct CpuSamples {
    /// The last sample before the poll.
    pub(crate) before: CpuSample,
    /// The first sample within the poll.
    pub(crate) within: Option<CpuSample>,
    pub(crate) now: CpuSample,
}

/// One poll at one time. Nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct AttributionInput {
    pub(crate) elapsed: u64,
    /// The charged time by the clock alone.
    pub(crate) charged: u64,
    pub(crate) budget: u64,
    /// The part of `elapsed` after the sample from within.
    pub(crate) since_within: u64,
    /// The time from the sample before the poll to its begin.
    pub(crate) before_start: u64,
    /// The time in which the whole process did not run.
    pub(crate) suspended: u64,
    /// An upper bound of the stolen time of the thread's CPU: see [`stolen_time`](crate::stolen_time).
    pub(crate) stolen: u64,
    /// The delay of the sentinel's scan.
    pub(crate) delayed: u64,
    /// Whether the sentinel still saw the poll over its budget.
    pub(crate) was_seen: bool,
    /// Whether the thread is on the run queue now. The present wait is in no sample yet.
    pub(crate) waits_now: bool,
}

/// The result of the attribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attribution {
    /// The code used the CPU.
    Computing,
    /// The code waited.
    Blocked,
    /// The poll is charged, but no sample shows what it did.
    Unknown,
    Starved,
    Suspended,
}

/// A shorter wait cannot be distinguished from the cost of a wake-up. A shorter poll was probably not interrupted, because
/// the time slices of the scheduler are longer.
pub(crate) const MIN_NANOS: u64 = 1_000_000;

/// Attributes a poll. Without samples the attribution is unknown.
pub(crate) fn attribute(
    input: AttributionInput,
    samples: Option<&CpuSamples>,
) -> (Attribution, Option<TimeBreakdown>) {
    let Some(samples) = samples.filter(|_| input.elapsed >= MIN_NANOS) else {
        return (Attribution::Unknown, None);
    };
    let split = samples.split(&input);
    let attribution = if input.charged.saturating_sub(input.suspended) <= input.budget {
        Attribution::Suspended
    } else if samples
        .charged(&input)
        .is_some_and(|charged| charged <= input.budget)
    {
        Attribution::Starved
    } else {
        samples.kind(&input, split.as_ref())
    };
    (attribution, split)
}

/// Returns the nanoseconds to charge a poll for.
pub(crate) fn charged_nanos(input: AttributionInput, samples: Option<&CpuSamples>) -> u64 {
    let by_wall = input.charged.saturating_sub(input.suspended);
    let samples = samples.filter(|_| input.elapsed >= MIN_NANOS);
    let by_samples = samples.and_then(|samples| samples.charged(&input));
    by_samples.map_or(by_wall, |charged| charged.min(by_wall))
}

/// Returns what the code did for most of the observed time.
pub(crate) fn dominant(split: Option<&TimeBreakdown>) -> Attribution {
    match split {
        None => Attribution::Unknown,
        Some(split) if split.on_cpu >= split.blocked => Attribution::Computing,
        Some(_) => Attribution::Blocked,
    }
}

impl CpuSamples {
    /// Returns the begin of the part after the sample from within: its latest time. From its earliest time, a wait in between
    /// would be in neither part.
    pub(crate) fn within_since(&self) -> Option<u64> {
        Some(self.within?.by)
    }

    /// Returns the larger of the two lower bounds. `None` if the run-queue wait is unknown.
    fn charged(&self, input: &AttributionInput) -> Option<u64> {
        let (whole, part) = self.bounds(input);
        whole.max(part)
    }

    /// Returns the lower bounds from the whole poll, and from the observed part.
    fn bounds(&self, input: &AttributionInput) -> (Option<u64>, Option<u64>) {
        // Time that is not charged by the clock is not charged here either.
        let others = input.elapsed.saturating_sub(input.charged);
        let others = others.saturating_add(input.suspended);
        let others = others.saturating_add(input.stolen);
        let bound = |since: &CpuSample, wall: u64, outside: u64| {
            let most = if input.waits_now {
                // All uncounted time may be the present wait, and the CPU time may have been before the poll.
                ran(since, &self.now)?.saturating_sub(outside)
            } else {
                wall.saturating_sub(waited(since, &self.now)?)
            };
            Some(most.saturating_sub(others))
        };
        let whole = bound(&self.before, input.elapsed, input.before_start);
        let part = self
            .within
            .and_then(|within| bound(&within, input.since_within, 0));
        // Unobserved time may have been a wait for a lock, whose holder was not scheduled either.
        let seen = |charged: u64| charged.saturating_sub(input.delayed);
        match input.was_seen {
            true => (whole.map(seen), part),
            false => (whole.map(seen), part.map(seen)),
        }
    }

    /// Returns what the code did for most of the charged time.
    fn kind(&self, input: &AttributionInput, split: Option<&TimeBreakdown>) -> Attribution {
        match self.was_blocked_unseen(input) {
            true => Attribution::Blocked,
            false => dominant(split),
        }
    }

    /// Returns whether the charged time was before the observed part, and too long for the CPU time of the thread.
    fn was_blocked_unseen(&self, input: &AttributionInput) -> bool {
        let (whole, part) = self.bounds(input);
        let ran = ran(&self.before, &self.now);
        let is_unseen = part.is_none_or(|part| part <= input.budget);
        is_unseen
            && whole
                .zip(ran)
                .is_some_and(|(charged, ran)| ran < charged / 2)
    }

    fn split(&self, input: &AttributionInput) -> Option<TimeBreakdown> {
        // The times of a very short part say nothing.
        let within = self.within.filter(|_| input.since_within >= MIN_NANOS)?;
        let wall = input.since_within;
        let on_cpu = ran(&within, &self.now)?.min(wall);
        let waited = waited(&within, &self.now)?.min(wall - on_cpu);
        let rest = wall - on_cpu - waited;
        let not_run = match input.waits_now {
            true => rest,
            false => input.stolen.min(rest),
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

    fn sample(cpu: u64, wait: u64) -> CpuSample {
        CpuSample {
            at: 0,
            by: 0,
            cpu: Some(cpu * MS),
            wait: Some(wait * MS),
        }
    }

    /// A poll of 30 ms under a budget of 10 ms, with a first sample at 5 ms.
    fn input() -> AttributionInput {
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

    fn attribution(
        input: AttributionInput,
        before: CpuSample,
        within: Option<CpuSample>,
        now: CpuSample,
    ) -> Attribution {
        let samples = CpuSamples {
            before,
            within,
            now,
        };
        attribute(input, Some(&samples)).0
    }

    #[test]
    fn attribute_follows_the_samples() {
        let (before, within) = (sample(100, 50), sample(103, 51));
        let within = Some(within);
        assert_eq!(
            attribution(input(), before, within, sample(127, 52)),
            Attribution::Computing
        );
        assert_eq!(
            attribution(input(), before, within, sample(104, 52)),
            Attribution::Blocked
        );
        assert_eq!(
            attribution(input(), before, within, sample(104, 75)),
            Attribution::Starved
        );
    }

    #[test]
    fn charged_nanos_leaves_out_run_queue_wait_and_suspension() {
        let charged = |input, now| {
            let samples = CpuSamples {
                before: sample(100, 50),
                within: None,
                now,
            };
            (
                charged_nanos(input, Some(&samples)),
                charged_nanos(input, None),
            )
        };
        assert_eq!(charged(input(), sample(127, 50)), (30 * MS, 30 * MS));
        assert_eq!(charged(input(), sample(104, 62)), (18 * MS, 30 * MS));
        let suspended = AttributionInput {
            suspended: 5 * MS,
            ..input()
        };
        assert_eq!(charged(suspended, sample(104, 62)), (13 * MS, 25 * MS));
        assert_eq!(charged(input(), sample(104, 90)), (0, 30 * MS));
    }

    #[test]
    fn attribute_with_a_wait_that_may_precede_the_poll_is_starved() {
        let before = sample(100, 0);
        let now = sample(125, 1_000);
        assert_eq!(
            attribution(input(), before, None, now),
            Attribution::Starved
        );
        let within = Some(sample(103, 1_000));
        assert_eq!(
            attribution(input(), before, within, now),
            Attribution::Computing
        );
    }

    #[test]
    fn attribute_charges_no_time_of_a_late_sentinel() {
        let (before, now) = (sample(100, 50), sample(101, 52));
        let within = Some(sample(100, 50));
        let attribution = |delayed, was_seen, within| {
            let input = AttributionInput {
                delayed: delayed * MS,
                was_seen,
                ..input()
            };
            attribution(input, before, within, now)
        };
        assert_eq!(attribution(17, false, None), Attribution::Blocked);
        assert_eq!(attribution(18, false, None), Attribution::Starved);
        assert_eq!(attribution(12, false, within), Attribution::Blocked);
        assert_eq!(attribution(18, false, within), Attribution::Starved);
        assert_eq!(attribution(99, true, within), Attribution::Blocked);
    }

    #[test]
    fn attribute_of_unobserved_time_without_cpu_is_blocked() {
        // It was on the run queue in all of the observed time.
        let before = sample(100, 50);
        let late = AttributionInput {
            since_within: 15 * MS,
            ..input()
        };
        let (within, now) = (sample(100, 50), sample(101, 65));
        assert_eq!(
            attribution(late, before, Some(within), now),
            Attribution::Blocked
        );
        let (within, now) = (sample(114, 50), sample(115, 65));
        assert_eq!(
            attribution(late, before, Some(within), now),
            Attribution::Computing
        );
    }

    #[test]
    fn attribute_of_a_thread_on_the_run_queue_is_not_blocked() {
        let (before, within) = (sample(100, 50), Some(sample(103, 50)));
        let waits_now = AttributionInput {
            waits_now: true,
            ..input()
        };
        let now = sample(104, 50);
        assert_eq!(
            attribution(waits_now, before, within, now),
            Attribution::Starved
        );
        // The CPU time may have been before the poll.
        assert_eq!(
            attribution(waits_now, sample(85, 50), None, sample(100, 50)),
            Attribution::Starved
        );
        assert_eq!(
            attribution(waits_now, sample(84, 50), None, sample(100, 50)),
            Attribution::Unknown
        );
        // Enough CPU time was before the wait.
        let now = sample(115, 50);
        assert_eq!(
            attribution(waits_now, before, within, now),
            Attribution::Computing
        );
    }

    #[test]
    fn attribute_charges_no_suspended_time() {
        let (before, within) = (sample(100, 50), Some(sample(103, 50)));
        let suspended = |suspended| AttributionInput {
            suspended,
            ..input()
        };
        let now = sample(104, 50);
        assert_eq!(
            attribution(suspended(25 * MS), before, within, now),
            Attribution::Suspended
        );
        assert_eq!(
            attribution(suspended(5 * MS), before, within, now),
            Attribution::Blocked
        );
    }

    #[test]
    fn attribute_charges_no_time_that_may_be_stolen() {
        let (before, within) = (sample(100, 50), Some(sample(100, 50)));
        let stolen = |stolen| AttributionInput {
            stolen: stolen * MS,
            ..input()
        };
        // Neither CPU time nor run-queue wait: the thread slept, or its CPU was stolen.
        let now = sample(101, 52);
        assert_eq!(
            attribution(stolen(17), before, within, now),
            Attribution::Blocked
        );
        assert_eq!(
            attribution(stolen(18), before, within, now),
            Attribution::Starved
        );
        // Some kernels count stolen time as CPU time.
        let now = sample(128, 52);
        assert_eq!(
            attribution(stolen(17), before, within, now),
            Attribution::Computing
        );
        assert_eq!(
            attribution(stolen(18), before, within, now),
            Attribution::Starved
        );
    }

    /// Tests every division of a short poll into CPU time, run-queue wait, stolen time and sleep. It is starved unless CPU
    /// time and sleep together exceed the budget.
    #[test]
    fn attribute_of_each_division_charges_cpu_time_and_sleep() {
        const WALL: u64 = 8;
        let divisions = (0..=WALL).flat_map(|ran| {
            (0..=WALL - ran).flat_map(move |waited| {
                (0..=WALL - ran - waited).map(move |stolen| [ran, waited, stolen])
            })
        });
        for ([ran, waited, stolen], budget) in
            divisions.flat_map(|division| (0..WALL).map(move |budget| (division, budget)))
        {
            let input = AttributionInput {
                elapsed: WALL * MS,
                charged: WALL * MS,
                budget: budget * MS,
                since_within: WALL * MS,
                before_start: 0,
                stolen: stolen * MS,
                ..input()
            };
            let (before, now) = (sample(0, 0), sample(ran, waited));
            let samples = CpuSamples {
                before,
                within: Some(before),
                now,
            };
            let (attribution, split) = attribute(input, Some(&samples));
            let charged = WALL - waited - stolen;
            assert_eq!(
                attribution == Attribution::Starved,
                charged <= budget,
                "{input:?} {ran}"
            );
            let slept = charged - ran;
            let split_of = TimeBreakdown::from_nanos(ran * MS, slept * MS, (waited + stolen) * MS);
            assert_eq!(split, Some(split_of));
        }
    }

    #[test]
    fn attribute_without_times_is_unknown() {
        let unknown = CpuSample {
            at: 0,
            by: 0,
            cpu: None,
            wait: None,
        };
        assert_eq!(
            attribution(input(), unknown, None, unknown),
            Attribution::Unknown
        );
        assert_eq!(attribute(input(), None), (Attribution::Unknown, None));
        let cpu_only = CpuSample {
            cpu: Some(120 * MS),
            ..unknown
        };
        assert_eq!(
            attribution(input(), sample(100, 0), None, cpu_only),
            Attribution::Unknown
        );
    }

    #[test]
    fn attribute_charges_no_time_of_slow_polls_inside() {
        let nested = AttributionInput {
            charged: 12 * MS,
            ..input()
        };
        let (before, within) = (sample(100, 50), Some(sample(103, 50)));
        assert_eq!(
            attribution(nested, before, within, sample(128, 53)),
            Attribution::Starved
        );
        assert_eq!(
            attribution(nested, before, within, sample(130, 51)),
            Attribution::Computing
        );
    }

    #[test]
    fn split_adds_up_to_the_observed_time() {
        let samples = CpuSamples {
            before: sample(0, 0),
            within: Some(sample(3, 1)),
            now: sample(10, 6),
        };
        let (_, split) = attribute(input(), Some(&samples));
        let split = split.unwrap();
        assert_eq!(split, TimeBreakdown::from_nanos(7 * MS, 13 * MS, 5 * MS));
        assert_eq!(split.observed().as_nanos() as u64, input().since_within);
        assert_eq!(
            split.to_string(),
            "7.0ms on cpu, 13.0ms blocked, 5.0ms starved"
        );
    }
}

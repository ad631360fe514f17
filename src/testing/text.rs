//! Writes an audit as text.

use std::fmt;
use std::time::Duration;

use super::records::{AuditRecord, AuditedPoll};

const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)];

/// The longest bar of the histogram, in characters: the table is as wide.
const MAX_BAR_CHARS: usize = 40;

pub(super) fn write(f: &mut fmt::Formatter<'_>, record: &AuditRecord) -> fmt::Result {
    let polls = counted(record.polls.len() as u64, "poll");
    let yields = counted(record.yields, "yield");
    let wake_ups = counted(record.wake_ups, "wake-up");
    let elapsed = record.elapsed();
    write!(
        f,
        "{polls}, {yields}, {wake_ups}, {elapsed:.1?} from the first poll to the end"
    )?;
    if record.polls.is_empty() {
        return Ok(());
    }
    write!(f, "\n\n{:<8}", "")?;
    for (name, _) in QUANTILES {
        write!(f, "  {name:>9}")?;
    }
    write!(f, "  {:>9}  {:>9}", "longest", "sum")?;
    if !record.has_wall_time_only {
        write_row(f, "active", record, |poll| poll.active)?;
    }
    write_row(f, "elapsed", record, |poll| poll.elapsed)?;
    write!(f, "\n\n")?;
    write_histogram(f, record)
}

pub(super) fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

fn write_row(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    record: &AuditRecord,
    time: impl Fn(&AuditedPoll) -> Duration,
) -> fmt::Result {
    let times = sorted(record.polls.iter().map(time));
    let longest = times.last().copied();
    let sum = times.iter().sum();
    let quantiles = QUANTILES.map(|(_, q)| quantile(&times, q));
    write!(f, "\n{name:<8}")?;
    for time in quantiles.into_iter().chain([longest, Some(sum)]) {
        let time = format!("{:.1?}", time.unwrap_or_default());
        write!(f, "  {time:>9}")?;
    }
    Ok(())
}

pub(super) fn sorted(times: impl Iterator<Item = Duration>) -> Vec<Duration> {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times
}

/// Returns the time that a share `q` of all polls did not exceed.
pub(super) fn quantile(sorted: &[Duration], q: f64) -> Option<Duration> {
    if q.is_nan() {
        return None;
    }
    let rank = (q.clamp(0.0, 1.0) * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// Writes the number of polls up to each bound, in steps of 1, 2 and 5.
fn write_histogram(f: &mut fmt::Formatter<'_>, record: &AuditRecord) -> fmt::Result {
    let rows = rows(&sorted(record.polls.iter().map(|poll| poll.active)));
    let most = rows.iter().map(|row| row.1).max().unwrap_or_default();
    let heading = match record.has_wall_time_only {
        false => "active",
        true => "elapsed",
    };
    write!(f, "{heading:<8}  {:>9}", "polls")?;
    for run in rows.chunk_by(|a, b| (a.1 == 0) == (b.1 == 0)) {
        match run {
            [(_, 0), _, ..] => write!(f, "\n…")?,
            _ => run.iter().try_for_each(|row| write_bar(f, *row, most))?,
        }
    }
    Ok(())
}

/// Writes a bar. A row with a poll has a visible one.
fn write_bar(
    f: &mut fmt::Formatter<'_>,
    (bound, count): (Duration, usize),
    most: usize,
) -> fmt::Result {
    let bound = format!("{bound:?}");
    write!(f, "\n≤ {bound:<6}  {count:>9}")?;
    match (MAX_BAR_CHARS * count).div_ceil(most.max(1)) {
        0 => Ok(()),
        length => write!(f, "  {}", "█".repeat(length)),
    }
}

/// Returns the rows from the first bound with a poll to the last one.
fn rows(sorted: &[Duration]) -> Vec<(Duration, usize)> {
    let mut rows = Vec::new();
    let mut below = 0;
    for bound in bounds() {
        let up_to = sorted.partition_point(|time| *time <= bound);
        if up_to > 0 {
            rows.push((bound, up_to - below));
        }
        below = up_to;
        if up_to == sorted.len() {
            break;
        }
    }
    rows
}

fn bounds() -> impl Iterator<Item = Duration> {
    let decades = (2..18).map(|exponent| 10_u64.pow(exponent));
    decades.flat_map(|decade| [1, 2, 5].map(|step| Duration::from_nanos(step * decade)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn write_of_an_audit_is_a_table_and_a_histogram() {
        let mut record =
            AuditRecord::fabricated(&[(1, 1), (1, 1), (2, 2), (90, 3), (1, 1), (30, 30)]);
        record.yields = 5;
        record.wake_ups = 7;
        let text = |record| {
            struct Text(AuditRecord);
            impl fmt::Display for Text {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    write(f, &self.0)
                }
            }
            Text(record).to_string()
        };
        assert_eq!(
            text(record),
            "\
6 polls, 5 yields, 7 wake-ups, 0.0ns from the first poll to the end

                p50        p90        p99    longest        sum
active        1.0ms     30.0ms     30.0ms     30.0ms     38.0ms
elapsed       1.0ms     90.0ms     90.0ms     90.0ms    125.0ms

active        polls
≤ 1ms             3  ████████████████████████████████████████
≤ 2ms             1  ██████████████
≤ 5ms             1  ██████████████
…
≤ 50ms            1  ██████████████"
        );
        let mut record = AuditRecord::fabricated(&[(4, 4)]);
        record.has_wall_time_only = true;
        assert_eq!(
            text(record),
            "\
1 poll, 0 yields, 0 wake-ups, 0.0ns from the first poll to the end

                p50        p90        p99    longest        sum
elapsed       4.0ms      4.0ms      4.0ms      4.0ms      4.0ms

elapsed       polls
≤ 5ms             1  ████████████████████████████████████████"
        );
        assert!(text(AuditRecord::fabricated(&[])).ends_with("to the end"));
    }

    #[test]
    fn quantile_is_the_time_of_a_poll() {
        let times = sorted((1..=100).rev().map(|n| n * MS));
        let of = |q| quantile(&times, q);
        assert_eq!(of(0.99), Some(99 * MS));
        assert_eq!(of(0.5), Some(50 * MS));
        assert_eq!((of(-1.0), of(0.0)), (Some(MS), Some(MS)));
        assert_eq!((of(1.0), of(7.0)), (Some(100 * MS), Some(100 * MS)));
        assert_eq!(of(f64::NAN), None);
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn rows_have_each_poll_once() {
        let times = [MS / 10, MS, MS + MS / 100, 40 * MS];
        let rows = rows(&times);
        assert_eq!(rows.iter().map(|row| row.1).sum::<usize>(), 4);
        assert_eq!(rows[0], (MS / 10, 1));
        assert!(rows.contains(&(MS, 1)) && rows.contains(&(2 * MS, 1)));
        assert_eq!(rows.last(), Some(&(50 * MS, 1)));
    }

    #[test]
    fn bounds_cover_every_time() {
        assert!(bounds().last() >= Some(Duration::from_secs(500_000_000)));
        assert_eq!(bounds().next(), Some(Duration::from_nanos(100)));
    }
}

//! Reads the state of the service and of the machine from /proc.

use std::fs;
use std::path::PathBuf;

use crate::Result;

/// The state of the service at one moment. Memory is in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) rss: u64,
    /// Without the `schedstat` files of threads: the watchdog keeps one open for each thread that it has diagnosed.
    pub(super) files: u64,
    pub(super) threads: u64,
}

impl Sample {
    pub(super) fn of(process: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        Ok(Self {
            rss: number_after(&status, "VmRSS:")?,
            files: files(process)?,
            threads: number_after(&status, "Threads:")?,
        })
    }
}

fn files(process: u32) -> Result<u64> {
    let files = fs::read_dir(format!("/proc/{process}/fd"))?.flatten();
    let is_account = |file: &PathBuf| file.ends_with("schedstat");
    let targets = files.filter_map(|file| fs::read_link(file.path()).ok());
    Ok(targets.filter(|target| !is_account(target)).count() as u64)
}

fn number_after(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or(name)?.parse()?)
}

/// The load of the machine. Times are in kernel ticks, 100 a second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Host {
    /// The mean number of runnable processes in the last minute.
    pub(super) load: f64,
    /// The processor time of the service.
    pub(super) used: u64,
    /// The time that the hypervisor gave to other guests, summed over all processors.
    pub(super) stolen: u64,
}

impl Host {
    pub(super) fn of(process: u32) -> Result<Self> {
        let load = fs::read_to_string("/proc/loadavg")?;
        let load = load.split(' ').next().unwrap_or_default().parse()?;
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        let (_, fields) = stat.rsplit_once(") ").ok_or("no name in stat")?;
        // utime and stime are fields 14 and 15.
        let times = fields.split(' ').skip(11).take(2);
        let used = times.filter_map(|time| time.parse::<u64>().ok()).sum();
        let stat = fs::read_to_string("/proc/stat")?;
        let stolen = stat.split_whitespace().nth(8).unwrap_or_default().parse()?;
        Ok(Self { load, used, stolen })
    }
}

/// Describes the machine in one line.
pub(super) fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown", |model| {
        model.trim_start_matches(['\t', ' ', ':'])
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, {cores} cores, Linux {}", kernel.trim())
}

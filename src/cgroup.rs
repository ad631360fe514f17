//! Floor 1: whether the CPU limit of the container throttled the process.
//!
//! The kernel counts throttled time of a thread as time on the run queue (measured). So a starved thread waited for the
//! CPU limit or for a busy host, and the remedies differ. The `cpu.stat` file of the cgroup distinguishes them.

use std::collections::VecDeque;
use std::path::{Component, Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::procfs::read_lossy;
use crate::sync::Lock;

/// The shortest time between two readings. One takes the kernel 100 µs.
const READING_INTERVAL: Duration = Duration::from_millis(500);
/// The readings that are kept, of the last four seconds. A longer poll is compared with the oldest one.
const MAX_READINGS: usize = 8;
/// The time between two searches for the files, because a process may be moved to another cgroup.
const LOOK_UP_INTERVAL: Duration = Duration::from_secs(1);

/// The files of the cgroups of this process, and their recent readings.
struct Throttling {
    /// The root of the file system.
    root: &'static Path,
    known: Lock<CgroupState>,
}

#[derive(Default)]
struct CgroupState {
    files: Vec<PathBuf>,
    looked_up: Option<Instant>,
    readings: VecDeque<(Instant, u64)>,
}

static THROTTLING: LazyLock<Throttling> = LazyLock::new(|| Throttling::new(Path::new("/")));

/// Reads the throttled time, if the last reading is old. The sentinel calls it while polls are in flight.
pub(crate) fn update() {
    THROTTLING.update(Instant::now());
}

/// Returns whether the limit throttled the process in the time `within` before now.
pub(crate) fn was_throttled(within: Duration) -> bool {
    THROTTLING.was_throttled(within, Instant::now())
}

/// Checks that the throttled time can be read. The error says why not.
pub(crate) fn is_readable() -> Result<(), String> {
    let is_readable = THROTTLING.with_files(Instant::now(), |known| known.total().is_some());
    is_readable
        .then_some(())
        .ok_or_else(|| "no cpu.stat with a throttled time was found for this process".into())
}

impl Throttling {
    fn new(root: &'static Path) -> Self {
        Self {
            root,
            known: Lock::default(),
        }
    }

    fn with_files<T>(&self, now: Instant, read: impl FnOnce(&mut CgroupState) -> T) -> T {
        let mut known = self.known.lock();
        let is_old = |at: Instant| now.duration_since(at) >= LOOK_UP_INTERVAL;
        if known.looked_up.is_none_or(is_old) {
            let files = stat_files(self.root);
            if files != known.files {
                known.readings.clear();
                known.files = files;
            }
            known.looked_up = Some(now);
        }
        read(&mut known)
    }

    fn update(&self, now: Instant) {
        self.with_files(now, |known| {
            let is_old = |(at, _): &(Instant, u64)| now.duration_since(*at) >= READING_INTERVAL;
            let is_due = known.readings.back().is_none_or(is_old);
            if let Some(total) = is_due.then(|| known.total()).flatten() {
                if known.readings.len() == MAX_READINGS {
                    known.readings.pop_front();
                }
                known.readings.push_back((now, total));
            }
        });
    }

    fn was_throttled(&self, within: Duration, now: Instant) -> bool {
        self.with_files(now, |known| {
            let is_before = |at: &Instant| now.duration_since(*at) >= within;
            let before = known.readings.iter().rev().find(|(at, _)| is_before(at));
            let before = before.or(known.readings.front()).map(|(_, total)| *total);
            matches!((before, known.total()), (Some(before), Some(now)) if now > before)
        })
    }
}

impl CgroupState {
    /// Returns the nanoseconds for which any cgroup was throttled so far, over all CPUs.
    fn total(&self) -> Option<u64> {
        let texts = self.files.iter().filter_map(|f| read_lossy(f).ok());
        texts.filter_map(|text| parse_throttled(&text)).max()
    }
}

/// Returns the throttled nanoseconds in a `cpu.stat`. Version 2 has microseconds there, and version 1 nanoseconds.
pub(crate) fn parse_throttled(text: &str) -> Option<u64> {
    text.lines().find_map(|line| match line.split_once(' ')? {
        ("throttled_usec", value) => value.trim().parse::<u64>().ok()?.checked_mul(1_000),
        ("throttled_time", value) => value.trim().parse().ok(),
        _ => None,
    })
}

/// Returns the `cpu.stat` of the process's cgroup and of each cgroup above it, because each may have a limit.
fn stat_files(root: &Path) -> Vec<PathBuf> {
    let read = |path: &str| read_lossy(root.join(path)).unwrap_or_default();
    let (groups, mounts) = (read("proc/self/cgroup"), read("proc/self/mountinfo"));
    let mut files = possible_files(root, &groups, &mounts);
    files.retain(|file| file.is_file());
    files
}

/// Returns where these files may be, by the texts of `/proc/self/cgroup` and `/proc/self/mountinfo`.
pub(crate) fn possible_files(root: &Path, groups: &str, mounts: &str) -> Vec<PathBuf> {
    let mounts: Vec<_> = mounts.lines().filter_map(parse_mount).collect();
    let mut files = Vec::new();
    // Not `lines`: the name of a cgroup may end in a carriage return.
    for group in groups.split('\n') {
        let mut fields = group.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        for mount in mounts.iter().filter(|mount| mount.has(controllers)) {
            let path = Path::new(path);
            // In a container the mount may show only a part of the tree.
            let inside = path.strip_prefix(&mount.root).unwrap_or(path);
            // The kernel writes a cgroup outside this part with dots. It has no path here.
            if inside.components().any(|part| part == Component::ParentDir) {
                continue;
            }
            let top = beneath(root, Path::new(&mount.point));
            let group = beneath(&top, inside);
            let around = group.ancestors().take_while(|path| path.starts_with(&top));
            files.extend(around.map(|path| path.join("cpu.stat")));
        }
    }
    files
}

/// Returns a path as one that begins at `top`.
fn beneath(top: &Path, path: &Path) -> PathBuf {
    top.join(path.strip_prefix("/").unwrap_or(path))
}

/// One line of `/proc/self/mountinfo`.
struct Mount<'l> {
    root: String,
    point: String,
    kind: &'l str,
    options: &'l str,
}

impl Mount<'_> {
    /// Returns whether this is the tree of cgroups with these controllers. Version 2 names none.
    fn has(&self, controllers: &str) -> bool {
        let controls_cpu = |list: &str| list.split(',').any(|controller| controller == "cpu");
        match controllers {
            "" => self.kind == "cgroup2",
            list => self.kind == "cgroup" && controls_cpu(list) && controls_cpu(self.options),
        }
    }
}

fn parse_mount(line: &str) -> Option<Mount<'_>> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let mut after = after.split(' ');
    Some(Mount {
        root: unescaped(before.next()?),
        point: unescaped(before.next()?),
        kind: after.next()?,
        options: after.nth(1)?,
    })
}

/// Decodes a path. The kernel writes blanks and backslashes as three octal digits, and systemd uses backslashes in the
/// names of cgroups.
fn unescaped(path: &str) -> String {
    let mut parts = path.split('\\');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part
            .get(..3)
            .and_then(|code| u8::from_str_radix(code, 8).ok());
        match code.filter(u8::is_ascii) {
            Some(code) => {
                text.push(char::from(code));
                text.push_str(&part[3..]);
            }
            None => text.extend(["\\", part]),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A directory that is removed on drop.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Self {
            let name = format!("shotclock-cgroup-{}-{name}", std::process::id());
            let root = std::env::temp_dir().join(name);
            fs::create_dir_all(root.join("proc/self")).unwrap();
            Self(root)
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn throttling(&self) -> Throttling {
            Throttling::new(self.0.clone().leak())
        }

        fn total(&self) -> Option<u64> {
            self.throttling()
                .with_files(Instant::now(), |known| known.total())
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn parse_throttled_of_both_versions_returns_nanoseconds() {
        assert_eq!(
            parse_throttled("nr_throttled 3\nthrottled_usec 7\n"),
            Some(7_000)
        );
        assert_eq!(
            parse_throttled("nr_throttled 3\nthrottled_time 7\n"),
            Some(7)
        );
        assert_eq!(parse_throttled("usage_usec 3\nthrottled_usec x\n"), None);
    }

    #[test]
    #[cfg_attr(miri, ignore = "uses the file system")]
    fn total_with_version_2_reads_the_cgroups_above() {
        let root = Root::new("v2");
        root.write("proc/self/cgroup", "0::/pod/app\n");
        root.write(
            "proc/self/mountinfo",
            "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n",
        );
        root.write("sys/fs/cgroup/pod/app/cpu.stat", "throttled_usec 1\n");
        root.write("sys/fs/cgroup/pod/cpu.stat", "throttled_usec 5\n");
        root.write("sys/fs/cgroup/cpu.stat", "usage_usec 1\n");
        assert_eq!(root.total(), Some(5_000));
    }

    #[test]
    #[cfg_attr(miri, ignore = "uses the file system")]
    fn total_with_version_1_reads_where_it_is_mounted() {
        let root = Root::new("v1");
        root.write(
            "proc/self/cgroup",
            "4:memory:/a\n2:cpu,cpuacct:/docker/b\n0::/\n",
        );
        root.write(
            "proc/self/mountinfo",
            "32 31 0:29 /docker/b /cg/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             33 31 0:30 / /cg/memory rw - cgroup cgroup rw,memory\n",
        );
        root.write("cg/cpu,cpuacct/cpu.stat", "throttled_time 9\n");
        assert_eq!(root.total(), Some(9));
    }

    fn possible(groups: &str, mount: &str) -> Vec<String> {
        let mount = format!("30 23 0:26 {mount} rw - cgroup2 cgroup2 rw\n");
        let files = possible_files(Path::new("/"), groups, &mount);
        files.iter().map(|f| f.display().to_string()).collect()
    }

    #[test]
    fn possible_files_with_escaped_names_are_decoded() {
        assert_eq!(
            possible(
                "0::/app\\x2da.service/b\n",
                r"/app\134x2da.service /my\040groups"
            ),
            ["/my groups/b/cpu.stat", "/my groups/cpu.stat"]
        );
        assert_eq!(unescaped(r"a\b\13"), r"a\b\13");
    }

    #[test]
    fn possible_files_of_a_partial_mount_are_below_its_root() {
        let whole = possible("0::/docker/bcd\n", "/docker/b /cg");
        assert_eq!(whole[0], "/cg/docker/bcd/cpu.stat", "not /cg/cd");
        assert_eq!(possible("0::/../c\n", "/ /cg"), [""; 0]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "uses the file system")]
    fn was_throttled_after_recent_growth_is_true() {
        let root = Root::new("grew");
        root.write("proc/self/cgroup", "0::/\n");
        root.write(
            "proc/self/mountinfo",
            "30 23 0:26 / /cg rw - cgroup2 cgroup2 rw\n",
        );
        root.write("cg/cpu.stat", "throttled_usec 5\n");
        let throttling = root.throttling();
        let start = Instant::now();
        throttling.update(start);
        assert!(!throttling.was_throttled(READING_INTERVAL, start + READING_INTERVAL));
        root.write("cg/cpu.stat", "throttled_usec 6\n");
        assert!(throttling.was_throttled(READING_INTERVAL, start + READING_INTERVAL));
        throttling.update(start + READING_INTERVAL);
        assert!(!throttling.was_throttled(READING_INTERVAL / 2, start + 2 * READING_INTERVAL));
        // The process has moved to another cgroup, which has no earlier reading.
        root.write("proc/self/cgroup", "0::/other\n");
        root.write("cg/other/cpu.stat", "throttled_usec 9\n");
        assert!(!throttling.was_throttled(READING_INTERVAL, start + 2 * LOOK_UP_INTERVAL));
    }

    #[test]
    #[cfg_attr(miri, ignore = "uses the file system")]
    fn was_throttled_without_files_is_false() {
        let root = Root::new("none");
        let throttling = root.throttling();
        throttling.update(Instant::now());
        assert!(!throttling.was_throttled(READING_INTERVAL, Instant::now()));
    }
}

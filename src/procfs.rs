//! Floor 1: reads `/proc`. Without such a file, the answer is "unknown".
//!
//! The parsers take text, so the tests can use the texts of other kernels.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use crate::sys::{self, Thread};

/// The state of a thread, by its system call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum SyscallState {
    /// It runs, or waits on the run queue.
    Running,
    /// It waits in a system call.
    Waits(Waits),
    /// It waits outside a system call, such as for a page of memory.
    Elsewhere,
}

/// A system call that a thread waits in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Waits {
    pub(crate) number: i64,
    pub(crate) arguments: [u64; 6],
    pub(crate) sp: u64,
    pub(crate) pc: u64,
}

/// Returns the state of a thread. The error says why it is unknown.
pub(crate) fn syscall_state(thread: &Thread) -> Result<SyscallState, String> {
    let path = format!("/proc/self/task/{}/syscall", thread.id);
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    parse_syscall_state(&text)
        .ok_or_else(|| format!("{path} has an unknown text: {:?}", text.trim()))
}

pub(crate) fn parse_syscall_state(text: &str) -> Option<SyscallState> {
    let mut words = text.split_whitespace();
    let first = words.next()?;
    if first == "running" {
        return Some(SyscallState::Running);
    }
    let number: i64 = first.parse().ok()?;
    let values: Option<Vec<u64>> = words.map(hexadecimal).collect();
    match (number, &values?[..]) {
        (0.., &[a, b, c, d, e, f, sp, pc]) => Some(SyscallState::Waits(Waits {
            number,
            arguments: [a, b, c, d, e, f],
            sp,
            pc,
        })),
        (..0, [_sp, _pc]) => Some(SyscallState::Elsewhere),
        _ => None,
    }
}

fn hexadecimal(word: &str) -> Option<u64> {
    u64::from_str_radix(word.strip_prefix("0x").unwrap_or(word), 16).ok()
}

/// Returns the state letter of a thread: R, S, D, T, t, …
pub(crate) fn state(thread: &Thread) -> Option<char> {
    let stat = read_lossy(format!("/proc/self/task/{}/stat", thread.id)).ok()?;
    parse_state(&stat)
}

/// Reads a file as text. The name of a file or a thread may have any bytes, and the kernel cuts a thread's name inside a
/// character. Bytes that are no UTF-8 must not hide the rest.
pub(crate) fn read_lossy(path: impl AsRef<Path>) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

/// Parses the state letter. The name before it is in brackets, and may contain brackets.
pub(crate) fn parse_state(stat: &str) -> Option<char> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.trim_start().chars().next()
}

/// Returns the number of the CPU on which a thread runs, or ran last.
pub(crate) fn processor(thread: &Thread) -> Option<u32> {
    let stat = read_lossy(format!("/proc/self/task/{}/stat", thread.id)).ok()?;
    parse_processor(&stat)
}

/// Parses the 39th field. The third field is the first one after the brackets of the name.
pub(crate) fn parse_processor(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(39 - 3)?.parse().ok()
}

/// Reasons for which a thread does not answer a signal at once.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct SignalObstacles {
    /// It has the signal blocked.
    pub(crate) is_blocked: bool,
    /// It is in an uninterruptible sleep, and accepts no signal before its end.
    pub(crate) is_uninterruptible: bool,
}

/// Returns the known reasons for which a thread does not answer a signal.
pub(crate) fn signal_obstacles(thread: &Thread, signal: i32) -> SignalObstacles {
    let status = read_lossy(format!("/proc/self/task/{}/status", thread.id));
    parse_signal_obstacles(&status.unwrap_or_default(), signal)
}

pub(crate) fn parse_signal_obstacles(status: &str, signal: i32) -> SignalObstacles {
    // Not `lines`: a thread's name may contain a carriage return. The kernel writes line breaks as `\n`.
    let field = |name| {
        let mut lines = status.split('\n');
        let value = lines.find_map(|line| line.strip_prefix(name));
        value.map(str::trim)
    };
    let mask = field("SigBlk:").and_then(|mask| u64::from_str_radix(mask, 16).ok());
    let bit = u32::try_from(signal - 1).ok();
    let is_blocked = mask.zip(bit).and_then(|(mask, bit)| mask.checked_shr(bit));
    SignalObstacles {
        is_blocked: is_blocked.is_some_and(|bits| bits & 1 == 1),
        is_uninterruptible: field("State:").is_some_and(|state| state.starts_with('D')),
    }
}

/// The scheduler statistics of one thread. The file stays open because the sentinel reads it often.
#[derive(Debug)]
pub(crate) struct Schedstat {
    thread: u32,
    /// `None` if each reading opens the file.
    kept: Option<KeptFile>,
}

/// The most files that stay open. They count against the limit of the program, which is often 1,024. A reading without an
/// open file costs about twice as much.
const MAX_KEPT_FILES: usize = 64;

/// A file that stays open, and counts against [`MAX_KEPT_FILES`].
#[derive(Debug)]
struct KeptFile(Option<File>);

/// The number of such files.
static KEPT_FILES: AtomicUsize = AtomicUsize::new(0);

impl KeptFile {
    /// Keeps the file open, unless the limit is reached. Then it closes the file.
    fn if_few(file: File) -> Option<Self> {
        let one_more = |kept| (kept < MAX_KEPT_FILES).then_some(kept + 1);
        let counted = KEPT_FILES.fetch_update(Relaxed, Relaxed, one_more);
        counted.is_ok().then(|| Self(Some(file)))
    }
}

impl Drop for KeptFile {
    fn drop(&mut self) {
        KEPT_FILES.fetch_sub(1, Relaxed);
        // In the child of a fork, the descriptor may be that of another file, or of none. The kernel copies the table of
        // files before the memory, and another thread may open a file between the two.
        if sys::is_forked() {
            std::mem::forget(self.0.take());
        }
    }
}

impl Schedstat {
    pub(crate) fn open(thread: &Thread) -> Option<Self> {
        let thread = thread.id;
        let kept = KeptFile::if_few(Self::file(thread)?);
        Some(Self { thread, kept })
    }

    fn file(thread: u32) -> Option<File> {
        File::open(format!("/proc/self/task/{thread}/schedstat")).ok()
    }

    pub(crate) fn read(&self) -> Option<SchedCounts> {
        let mut text = [0; 96];
        let len = match &self.kept {
            Some(KeptFile(Some(file))) => read_from_start(file, &mut text).ok()?,
            _ => read_from_start(&Self::file(self.thread)?, &mut text).ok()?,
        };
        parse_sched_counts(std::str::from_utf8(text.get(..len)?).ok()?)
    }

    /// Returns the nanoseconds that the thread has spent on the run queue since its begin.
    pub(crate) fn run_queue_wait(&self) -> Option<u64> {
        Some(self.read()?.wait)
    }
}

/// The scheduler's counts of a thread since its begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SchedCounts {
    /// The nanoseconds on the run queue. The kernel adds the present wait when the thread runs again.
    pub(crate) wait: u64,
    /// The number of times that it got a CPU.
    pub(crate) count: u64,
}

#[cfg(unix)]
pub(crate) fn read_from_start(file: &File, into: &mut [u8]) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, into, 0)
}

#[cfg(not(unix))]
pub(crate) fn read_from_start(_: &File, _: &mut [u8]) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn parse_sched_counts(text: &str) -> Option<SchedCounts> {
    let mut fields = text.split_whitespace();
    let on_cpu: u64 = fields.next()?.parse().ok()?;
    let wait = fields.next()?.parse().ok()?;
    let count = fields.next()?.parse().ok()?;
    // The reading thread has run, so zeros everywhere mean that the kernel does not count.
    (on_cpu > 0 || count > 0).then_some(SchedCounts { wait, count })
}

/// Returns the target of a file descriptor of this process: a path, or `socket:[…]`, `pipe:[…]`.
pub(crate) fn descriptor(number: u64) -> Option<String> {
    let target = fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
    Some(target.to_string_lossy().into_owned())
}

/// An executable mapping of a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mapping {
    pub(crate) addresses: Range<u64>,
    /// The offset of the mapping in the file.
    pub(crate) offset: u64,
    /// A path, or a name in square brackets.
    pub(crate) path: String,
}

/// Returns the executable mappings of this process that have a name.
pub(crate) fn executable_mappings() -> Vec<Mapping> {
    let maps = read_lossy("/proc/self/maps").unwrap_or_default();
    parse_mappings(&maps)
}

/// Opens the file behind a mapping for reading.
pub(crate) fn open_mapped(path: &str) -> Option<fs::File> {
    // The program may have been replaced on disk since its start.
    let is_own = std::env::current_exe().is_ok_and(|exe| exe.as_os_str() == path);
    let path = if is_own { "/proc/self/exe" } else { path };
    // The mapping may be of a device, and its path may lead to another file now. An open could block, or have an effect.
    let is_file = fs::metadata(path).ok()?.is_file();
    is_file.then(|| fs::File::open(path).ok())?
}

/// Parses the executable mappings. Not by `lines`, because a path may end in a carriage return.
pub(crate) fn parse_mappings(maps: &str) -> Vec<Mapping> {
    maps.split('\n').filter_map(parse_mapping).collect()
}

fn parse_mapping(line: &str) -> Option<Mapping> {
    let mut words = line.splitn(6, ' ');
    let (from, to) = words.next()?.split_once('-')?;
    let is_executable = words.next()?.contains('x');
    let offset = hexadecimal(words.next()?)?;
    let path = words.nth(2)?.trim_start();
    let addresses = hexadecimal(from)?..hexadecimal(to)?;
    (is_executable && !path.is_empty() && !addresses.is_empty()).then(|| Mapping {
        addresses,
        offset,
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_signal_obstacles_reads_the_state_and_the_bit_of_the_signal() {
        let is_blocked = |status, signal| parse_signal_obstacles(status, signal).is_blocked;
        // SIGURG is 23: the lowest bit is that of signal 1.
        let status = "Name:\tSigBlk:\nState:\tS (sleeping)\nSigBlk:\t0000000000400000\n";
        assert!(is_blocked(status, 23));
        assert!(!is_blocked(status, 22) && !is_blocked(status, 24));
        let all = "SigBlk:\tffffffffffffffff\n";
        assert!(is_blocked(all, 64) && !is_blocked(all, 65) && !is_blocked(all, 0));
        for unknown in ["", "Name:\tx\n", "SigBlk:\tx\n"] {
            assert_eq!(
                parse_signal_obstacles(unknown, 23),
                SignalObstacles::default(),
                "{unknown:?}"
            );
        }
        assert!(!parse_signal_obstacles(status, 23).is_uninterruptible);
        assert!(parse_signal_obstacles("State:\tD (disk sleep)\n", 23).is_uninterruptible);
    }

    #[test]
    fn parse_syscall_state_distinguishes_running_call_and_other_wait() {
        assert_eq!(
            parse_syscall_state("running\n"),
            Some(SyscallState::Running)
        );
        assert_eq!(
            parse_syscall_state("-1 0x7ffd 0x7f12\n"),
            Some(SyscallState::Elsewhere)
        );
        let text = "230 0x1 0x0 0x7f0 0x7f1 0x0 0x2a 0x7ffe10 0x7f25\n";
        let waits = Waits {
            number: 230,
            arguments: [1, 0, 0x7f0, 0x7f1, 0, 42],
            sp: 0x7f_fe10,
            pc: 0x7f25,
        };
        assert_eq!(parse_syscall_state(text), Some(SyscallState::Waits(waits)));
        for text in ["", "0", "230 0x1", "230 1 2 3 4 5 6 7 8 9", "x y z", "-1"] {
            assert_eq!(parse_syscall_state(text), None, "{text}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    #[cfg_attr(miri, ignore = "there is no /proc")]
    fn schedstat_of_many_threads_keeps_few_files_open() {
        let thread = Thread::current().expect("Linux tells it");
        let accounts: Vec<_> = (0..3 * MAX_KEPT_FILES)
            .map(|_| Schedstat::open(&thread).expect("it is there"))
            .collect();
        assert!(accounts.iter().all(|account| account.read().is_some()));
        let kept = || accounts.iter().filter(|account| account.kept.is_some());
        assert!(kept().count() <= MAX_KEPT_FILES);
        // Other tests keep some as well.
        let files = fs::read_dir("/proc/self/fd").expect("Linux has it");
        let is_account = |path: &std::path::Path| path.ends_with("schedstat");
        let paths = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
        let open = paths.filter(|path| is_account(path)).count();
        assert!((1..=MAX_KEPT_FILES + 8).contains(&open), "{open}");
    }

    #[test]
    fn parse_state_after_a_name_with_brackets_finds_it() {
        assert_eq!(parse_state("7 (a) b) (c) D 1 2"), Some('D'));
        assert_eq!(parse_state("7 (a R 1 2"), None);
    }

    #[test]
    fn parse_processor_reads_the_39th_field() {
        let fields: Vec<_> = (3..=52).map(|field| field.to_string()).collect();
        let stat = format!("7 (a) 1 (b) {}\n", fields.join(" "));
        assert_eq!(parse_processor(&stat), Some(39));
        assert_eq!(parse_processor("7 (a) R 1 2"), None);
    }

    #[test]
    fn parse_sched_counts_of_zeros_is_none() {
        let turns = SchedCounts {
            wait: 340,
            count: 5,
        };
        assert_eq!(parse_sched_counts("1200 340 5\n"), Some(turns));
        assert_eq!(parse_sched_counts("0 0 0\n"), None);
        assert_eq!(parse_sched_counts("1200\n"), None);
        assert_eq!(parse_sched_counts("a b c\n"), None);
    }

    #[test]
    fn parse_mappings_finds_executable_mappings() {
        let line = "7f12a000-7f12c000 r-xp 00001000 08:01 1234    /lib/a b.so (deleted)";
        assert_eq!(
            parse_mapping(line),
            Some(Mapping {
                addresses: 0x7f12_a000..0x7f12_c000,
                offset: 0x1000,
                path: "/lib/a b.so (deleted)".into(),
            })
        );
        for line in [
            "7f12a000-7f12c000 rw-p 00001000 08:01 1234    /lib/a.so",
            "7f12a000-7f12c000 r-xp 00000000 00:00 0 ",
            "7f12a000-7f12c000 r-xp",
            "7f12c000-7f12a000 r-xp 00001000 08:01 1234    /lib/a.so",
            "",
        ] {
            assert_eq!(parse_mapping(line), None, "{line}");
        }
    }

    /// The kernel keeps 15 bytes of a name: here half of the eighth letter.
    #[cfg(all(target_os = "linux", not(miri)))]
    #[test]
    fn parse_state_after_a_name_cut_inside_a_character_finds_it() {
        let named = std::thread::Builder::new().name("обработчик".into());
        let states = named.spawn(|| state(&Thread::current().unwrap())).unwrap();
        assert_eq!(states.join().unwrap(), Some('R'));
    }

    /// Such a file need not even be executable.
    #[cfg(all(target_os = "linux", not(miri)))]
    #[test]
    fn read_lossy_with_any_bytes_returns_text() {
        use std::os::unix::ffi::OsStringExt as _;
        let name = [
            b"shotclock-\xff-",
            std::process::id().to_string().as_bytes(),
        ]
        .concat();
        let path = std::env::temp_dir().join(std::ffi::OsString::from_vec(name));
        let line = b"7f12a000-7f12c000 r--p 00000000 08:01 1234 /data/\xe9t\xe9\n";
        let executable = b"7f12c000-7f12d000 r-xp 00001000 08:01 1235 /lib/a.so\n";
        fs::write(&path, [&line[..], executable].concat()).unwrap();
        let text = read_lossy(&path);
        fs::remove_file(&path).unwrap();
        let mappings = parse_mappings(&text.unwrap());
        assert_eq!(mappings.len(), 1);
        assert_eq!(mappings[0].path, "/lib/a.so");
    }

    #[cfg(all(target_os = "linux", not(miri)))]
    #[test]
    fn syscall_state_of_a_sleeping_thread_is_its_call() {
        let (tx, rx) = std::sync::mpsc::channel();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            tx.send(Thread::current()).unwrap();
            let _ = held.recv();
        });
        let sleeper = rx.recv().unwrap().unwrap();
        while !matches!(syscall_state(&sleeper), Ok(SyscallState::Waits(_))) {
            std::thread::yield_now();
        }
        assert_eq!(state(&sleeper), Some('S'));
        let account = Schedstat::open(&sleeper).unwrap();
        assert!(account.run_queue_wait().is_some());
        drop(release);
        thread.join().unwrap();
    }
}

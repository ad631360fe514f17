//! A program that blocks a signal after it built a watchdog. The signal stays pending for the program, and no thread of the
//! crate accepts it. The program has no test harness, whose threads would accept the signal.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unsafe_code, reason = "the calls are those of C")]

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() {
    linux::main();
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod linux {
    use std::collections::BTreeMap;
    use std::mem::zeroed;
    use std::ptr::null_mut;
    use std::time::Duration;

    use shotclock::{Lane, SlowPoll, Watchdog};

    /// The signals of faults of the thread itself.
    const FAULTS: [i32; 6] = [
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGILL,
        libc::SIGSEGV,
        libc::SIGSYS,
        libc::SIGTRAP,
    ];

    pub(crate) fn main() {
        let before = mask_of("self");
        let watchdog = start_all();
        assert!(
            watchdog.0.capabilities().stacks.works(),
            "a thread asked itself for its stack"
        );
        assert_eq!(mask_of("self"), before, "the caller's mask is as it was");
        threads_of_the_crate_take_no_signal_but_faults();
        threads_of_a_lane_take_captures_and_profiles();
        a_signal_that_the_program_blocks_later_stays_pending();
        drop(watchdog);
        println!("signals: all three hold");
    }

    /// Starts all kinds of threads of the crate.
    fn start_all() -> (Watchdog, impl Sized) {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var("WATCHDOG_USEC", "60000000") };
        let watchdog = Watchdog::builder()
            .on_slow_poll(|_: &SlowPoll| ())
            .escalate(
                Duration::from_secs(3_600),
                shotclock::Escalation::call(|_: &SlowPoll| ()),
            )
            .build()
            .unwrap();
        shotclock::prometheus::install("127.0.0.1:0".parse().unwrap()).unwrap();
        let heartbeat = shotclock::systemd::start(&watchdog).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let guard = watchdog.guard("main", runtime.handle());
        runtime.block_on(async {
            let mut pace = shotclock::yield_after(Duration::from_millis(1));
            for _ in 0..1_000 {
                pace.tick().await;
            }
        });
        let lane = Lane::builder("counted").limit(1).rayon().build().unwrap();
        (watchdog, (heartbeat, guard, runtime, lane))
    }

    /// Returns `SigBlk` of a thread.
    fn mask_of(task: &str) -> u64 {
        let path = match task {
            "self" => "/proc/thread-self/status".to_owned(),
            task => format!("/proc/self/task/{task}/status"),
        };
        let status = std::fs::read_to_string(path).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
        u64::from_str_radix(mask.unwrap().trim(), 16).unwrap()
    }

    fn is_blocked(mask: u64, signal: i32) -> bool {
        mask >> (signal - 1) & 1 == 1
    }

    /// Returns the masks of the threads by name, without those that have ended.
    fn masks() -> BTreeMap<String, u64> {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let mask = |task: std::io::Result<std::fs::DirEntry>| {
            let task = task.ok()?.file_name().into_string().ok()?;
            let name = std::fs::read_to_string(format!("/proc/self/task/{task}/comm")).ok()?;
            Some((name.trim().to_owned(), mask_of(&task)))
        };
        tasks.filter_map(mask).collect()
    }

    /// Waits for a name, because a thread sets its own name when it first runs.
    fn masks_with(names: &[&str]) -> BTreeMap<String, u64> {
        loop {
            let masks = masks();
            let is_there = |name: &&str| masks.contains_key(*name);
            if names.iter().all(is_there) {
                return masks;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn signals() -> impl Iterator<Item = i32> {
        // The C library keeps 32 and 33 for itself.
        (1..=31)
            .chain(34..=64)
            .filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal))
    }

    fn threads_of_the_crate_take_no_signal_but_faults() {
        // The kernel keeps 15 bytes of a name.
        let masks = masks_with(&[
            "shotclock-watch",
            "shotclock-hist",
            "shotclock-rep-0",
            "shotclock-rep-1",
            "shotclock-esc-0",
            "shotclock-metri",
            "shotclock-http",
            "shotclock-sysd",
            "shotclock-probe",
            "shotclock-slice",
        ]);
        let of_the_crate = masks.iter().filter(|(name, _)| {
            // It captures its own stack, and ends.
            name.starts_with("shotclock-") && *name != "shotclock-load"
        });
        for (name, mask) in of_the_crate {
            for signal in signals() {
                let is_expected = !FAULTS.contains(&signal);
                assert_eq!(is_blocked(*mask, signal), is_expected, "{name}: {signal}");
            }
        }
    }

    fn threads_of_a_lane_take_captures_and_profiles() {
        let mask = masks_with(&["counted-0"])["counted-0"];
        for signal in signals() {
            let taken = [libc::SIGURG, libc::SIGPROF];
            let is_expected = !FAULTS.contains(&signal) && !taken.contains(&signal);
            assert_eq!(is_blocked(mask, signal), is_expected, "{signal}");
        }
    }

    /// Without the masks, SIGTERM ends this process.
    fn a_signal_that_the_program_blocks_later_stays_pending() {
        // SAFETY: the sets are initialised before they are read, and the signal is this process's own.
        unsafe {
            let mut blocked: libc::sigset_t = zeroed();
            libc::sigemptyset(&mut blocked);
            libc::sigaddset(&mut blocked, libc::SIGTERM);
            assert_eq!(
                libc::pthread_sigmask(libc::SIG_BLOCK, &blocked, null_mut()),
                0
            );
            assert_eq!(libc::kill(libc::getpid(), libc::SIGTERM), 0);
            let mut pending: libc::sigset_t = zeroed();
            assert_eq!(libc::sigpending(&mut pending), 0);
            assert_eq!(libc::sigismember(&pending, libc::SIGTERM), 1);
            let limit = libc::timespec {
                tv_sec: 60,
                tv_nsec: 0,
            };
            let taken = libc::sigtimedwait(&blocked, null_mut(), &limit);
            assert_eq!(taken, libc::SIGTERM);
        }
    }
}

//! The index of all process-wide state: each `static` and each thread-local of the crate, tests aside.
//!
//! State belongs to a watchdog (`watch::WatchdogInner`) unless a reason below makes it process-wide. Each `static`
//! stands beside its type. One module for all would import from every floor, and the floors would have circles. A
//! test in this module fails if a `static` is not listed.
//!
//! # In a forked child
//!
//! The child has a copy of the memory and one thread. The rules, where an entry names no other:
//!
//! - An atomic keeps the value of the parent.
//! - A `sync::Lock` keeps its value, or gives a default one if another thread of the parent held it: see
//!   `sync/lock.rs`.
//! - Threads of the crate are missing: see `BackgroundThread`. What they alone use stays unused.
//! - A std `Mutex`, `OnceLock` or `LazyLock` stays locked if another thread of the parent held it. So the child asks
//!   `sys::is_forked` first, or does not use it.
//! - A thread-local of the forking thread keeps its value. No other thread exists.
//!
//! # One thread of the crate serves all watchdogs
//!
//! A second sentinel would double the cost of a scan, and the two would signal the same threads.
//!
//! - `sentinel/mod.rs`: `THREAD`, the sentinel.
//! - `sentinel/ticker.rs`: `THREAD`, the ticker. `TICKING` says whether ticks are published; its holder publishes
//!   one.
//! - `slot/sentinel_parker.rs`: `SENTINEL_PARKER`, the sleep of the sentinel, which each poll ends. A child may find
//!   it asleep, and wakes no thread.
//! - `liveness.rs`: `SENTINEL` and `TICKER`, the signs of life of the two threads. In a child they stand still, and
//!   `health` says so.
//! - `dispatch/deferred.rs`: `DEFERRED`, the ended polls that wait for a scan. A child leaves none.
//! - `prober/mod.rs`: `THREAD`, the prober.
//! - `publish/enabled.rs`: `THREAD`, the metrics thread. `DURATIONS` is its queue; `build` allocates it. `BATCH` is
//!   held during a batch. `BUCKETS_AS_COUNTERS` is a setting of the facade, which the process has one of.
//! - `slice_ticker.rs`: `SLICE_TICKER`, the thread that advances the counter for time slices. In the
//!   child the counter stands still if the parent had the thread, and paces go by the clock alone.
//!
//! # A thread polls futures of several watchdogs
//!
//! One poll of a watch of one watchdog runs inside a poll of another one, and attribution needs both.
//!
//! - `slot/slots.rs`: `SLOTS`, the slots of all threads, which no thread holds at a fork: see `notice_forks`.
//!   Thread-locals: `CURRENT` is the thread's slot, `LEASE` returns it at the thread's end, and `HELD` keeps the lock
//!   during a fork.
//! - `watch/ids.rs`: `ENTRIES` and `NEXT_ID`, the name and the watchdog of each watch id that a slot holds. A child
//!   adds no entry.
//! - `watch/budgets.rs`: `ALL` and `TICKED`, the budgets in use, from which the sentinel takes its scan interval.
//! - `flight_record/enabled.rs`: `RING`, the last polls of all threads. `sentinel::start` allocates it. A child skips
//!   a locked entry.
//! - `containment.rs`: `HANDOVER_NANOS`, the measured cost of a hand-over on this machine. Thread-locals:
//!   `IS_CONTAINED` and `IS_REFUSED`, the state of `block_in_place` on the thread.
//! - `dispatch/reporter_thread.rs`: the thread-local `REPORTING`, whether the thread runs a reporter, of any
//!   watchdog.
//! - `watchdog/tasks.rs`: the thread-locals `TASKS` and `KNOWN_TO`, the polls that the hooks of tokio began on the
//!   worker.
//!
//! # The operating system has one
//!
//! - `sync/fork.rs`: `HOME_PROCESS` and `HANDLER_RAN`, which detect a child.
//! - `sys/linux/fork.rs`: `HANDLERS`, the handlers of `fork`. A child runs them at its own forks.
//! - `sys/linux/fence.rs`: `REGISTERED`, whether the kernel accepted `membarrier`. A child inherits the registration.
//! - `sys/linux/capture.rs`: `SIGNAL` and `EXCHANGE`, the capture signal, and the request and answer of its handler. A
//!   child inherits the handler, and no thread requests a stack.
//! - `sentinel/stack_sampler.rs`: `CAPTURER`, the right to use them. `sentinel/self_test.rs`: `SELF_TEST`, the outcome of
//!   their self-test. In a child `capabilities` reports that stacks are unavailable.
//! - `stack/symbols.rs`: `NAMES` and `CACHE_IS_STALE`, the names of code addresses. `stack/debug_info.rs`: `FILES`, the
//!   files that have them. A child looks up no names.
//! - `stack/mod.rs`: `NAMELESS`, a constant in place of those names.
//! - `procfs.rs`: `KEPT_FILES`, the number of open files of the crate, whose limit the process shares with the
//!   program. A child does not close the parent's files.
//! - `cgroup.rs`: `THROTTLING`, the CPU limit of the process. `stolen_time.rs`: `STOLEN_TIME`, the stolen time of
//!   each processor. `suspension.rs`: `SUSPENSIONS` and `DELAYS`, when the process or the sentinel did not run. A
//!   child reads none of them: it counts a slow poll without an attribution.
//! - `clock.rs`: `COUNTER_SCALE`, the measured rate of the processor's counter, and `FIRST`, the origin of the clock
//!   without such a counter. The first watchdog sets both, so a child that has a watchdog finds them set.
//! - `coarse_clock.rs`: `COARSE_CLOCK`, the coarse reading of the machine's clock. In a child the tick stands still,
//!   so a poll by ticks counts as its sample did, however long it was.
//! - `watch/aggregate.rs`: `CLOCK`, a handle of the machine's clock for gauges.
//!
//! # Counters outlive their watchdog
//!
//! A series in Prometheus has a name in the process and must not go back when a watchdog or a lane ends.
//!
//! - `watch/aggregate.rs`: `REGISTRIES`, the live registries, and the sums of ended ones.
//! - `counters/mod.rs`: `LANES` and `RUNTIMES`, the counters by name. `counters/culprits.rs`: `SUMS`, those of
//!   culprits.
//! - `runtime/mod.rs`: `GUARDED` and `COUNT`, the guarded runtimes, which the sentinel scans. `NEXT_ID` numbers them.
//!
//! # Public functions without a receiver
//!
//! - `watchdog/guard.rs`: `GLOBAL`, the watchdog of `guard`. In a child `build` fails.
//! - `offload/mod.rs`: `CPU`, the lane of `offload`. A child makes a lane for each call if the parent had none.
//! - `offload/reentrancy.rs`: the thread-local `HERE`, the lanes whose closures run on the thread.
//! - `offload/queue.rs`: `NEXT_ID` numbers the lanes, for that thread-local and for `FILLING`, the lanes that the
//!   thread starts jobs of.
//! - `dispatch/dispatcher.rs`: `NEXT_ID` numbers the reports. An id is unique in the process, so logs of two
//!   watchdogs can be merged.
//! - `coop/slice.rs`: `NEXT_TURNS`, a number that differs between paces, so that siblings do not act at once.
//!
//! # Tests of the program (feature `testing`)
//!
//! - `testing/sentinel_hook.rs`: `HOOK`, the watch of all audited polls. `assert_poll_budget!` has no receiver.
//! - `testing/thread_times.rs`: the thread-local `COUNTERS`, the open files with the thread's times.
//! - `clock.rs`: `MOCKED` numbers the mocked clocks, so that readings of two are not compared.

#[cfg(all(test, unix, not(miri)))]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    /// Files of tests, models and fuzz targets, by a part of their path.
    const TEST_FILES: [&str; 5] = [
        "tests/",
        "tests.rs",
        "models/",
        "fuzzing/",
        "sync/under_loom/",
    ];

    type Statics = BTreeSet<(String, String)>;

    #[test]
    fn static_in_the_sources_is_in_the_index() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut found = Statics::new();
        add_statics_below(&source, &source, &mut found);
        let listed = listed();
        let missing: Vec<_> = found.difference(&listed).collect();
        let gone: Vec<_> = listed.difference(&found).collect();
        assert!(
            missing.is_empty() && gone.is_empty(),
            "src/process_state.rs lists process-wide state. Not listed: {missing:?}. Listed and gone: {gone:?}"
        );
    }

    /// `sys` uses `sync`, so an import the other way would be a circle.
    #[test]
    fn sync_imports_no_other_module() {
        let sync = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sync");
        for folder in [sync.join("under_loom"), sync] {
            let paths = std::fs::read_dir(folder).unwrap();
            let paths = paths.map(|entry| entry.unwrap().path());
            for path in paths.filter(|path| path.is_file()) {
                let text = std::fs::read_to_string(&path).unwrap();
                let text = text.replace("use crate::sync::", "");
                assert!(!text.contains("use crate::"), "{}", path.display());
            }
        }
    }

    fn add_statics_below(directory: &Path, source: &Path, found: &mut Statics) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                add_statics_below(&path, source, found);
                continue;
            }
            let file = path.strip_prefix(source).unwrap().to_str().unwrap();
            if TEST_FILES.iter().any(|part| file.contains(part)) {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let names = without_tests(&text).lines().filter_map(name_of_static);
            found.extend(names.map(|name| (file.to_owned(), name.to_owned())));
        }
    }

    /// The module of unit tests is the last item of a file.
    fn without_tests(text: &str) -> &str {
        let end = text.find("mod tests {");
        &text[..end.unwrap_or(text.len())]
    }

    fn name_of_static(line: &str) -> Option<&str> {
        let line = line.trim_start();
        let (before, after) = line.split_once("static ")?;
        let is_declaration = before.is_empty() || before.starts_with("pub");
        let (name, _) = after.trim_start_matches("ref ").split_once(':')?;
        let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        (is_declaration && name.chars().all(is_name)).then_some(name)
    }

    /// Each name in capitals belongs to the file before it.
    fn listed() -> Statics {
        let mut listed = Statics::new();
        let lines = include_str!("process_state.rs").lines();
        let page: Vec<_> = lines.map_while(|line| line.strip_prefix("//!")).collect();
        let mut file = None;
        for code in page.join(" ").split('`').skip(1).step_by(2) {
            if code.ends_with(".rs") {
                file = Some(code);
            } else if let Some(file) =
                file.filter(|_| name_of_static(&format!("static {code}:")).is_some())
            {
                listed.insert((file.to_owned(), code.to_owned()));
            }
        }
        listed
    }
}

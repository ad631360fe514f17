//! Starved and suspended polls are counted under their cause, and not reported. Each scenario has its own process.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use common::Spinners;
use prometheus_parse::{Scrape, Value};
use shotclock::{SlowPoll, WatchExt as _, Watchdog};

/// The output of a scenario.
#[derive(Debug, PartialEq)]
struct Outcome {
    reports: u64,
    polls: u64,
    starved: u64,
    suspended: u64,
    busy_host: u64,
    cpu_limit: u64,
}

impl Outcome {
    fn print(&self) {
        let Self {
            reports,
            polls,
            starved,
            suspended,
            busy_host,
            cpu_limit,
        } = self;
        println!("outcome {reports} {polls} {starved} {suspended} {busy_host} {cpu_limit}");
    }

    fn parse(output: &str) -> Self {
        let line = output.lines().find_map(|line| line.split_once("outcome "));
        let (_, line) = line.unwrap_or_else(|| panic!("no outcome in {output}"));
        let numbers: Vec<u64> = line.split(' ').map(|n| n.parse().unwrap()).collect();
        let [reports, polls, starved, suspended, busy_host, cpu_limit] = numbers[..] else {
            panic!("{line}")
        };
        Self {
            reports,
            polls,
            starved,
            suspended,
            busy_host,
            cpu_limit,
        }
    }
}

/// Runs a service on two workers, in the child. Its polls compute for a millisecond under a budget of ten. It stops at the end
/// of its standard input.
fn well_behaved_service() -> Outcome {
    let exporter = shotclock::prometheus::Exporter::new(
        shotclock::prometheus::builder().install_recorder().unwrap(),
    );
    let (tx, reports) = mpsc::channel();
    let report = move |slow: &SlowPoll| {
        eprintln!("{slow}");
        tx.send(()).unwrap();
    };
    let builder = Watchdog::builder().without_tracing().on_slow_poll(report);
    let watchdog = builder.budget(Duration::from_millis(10)).build().unwrap();
    let watch = watchdog.watch("good");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    for _ in 0..4 {
        runtime.spawn(poll_for_ever().watched(&watch));
    }
    println!("ready");
    let _ = std::io::stdin().read_line(&mut String::new());
    // Waits for the polls in flight, so the numbers below agree.
    runtime.shutdown_timeout(Duration::from_secs(60));
    assert!(watchdog.flush(Duration::from_secs(10)));
    let text = exporter.render();
    let scrape = Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap();
    let value = |metric: &str, label: &str, value: &str| {
        let mut samples = scrape.samples.iter();
        let sample = samples.find(|s| s.metric == metric && s.labels.get(label) == Some(value));
        match sample.map(|sample| &sample.value) {
            Some(Value::Counter(count)) => *count as u64,
            other => panic!("{metric} {value}: {other:?}"),
        }
    };
    let cause = |cause| value("shotclock_slow_polls_total", "cause", cause);
    let reason = |reason| value("shotclock_reports_suppressed_total", "reason", reason);
    Outcome {
        reports: reports.try_iter().count() as u64,
        polls: watch.stats().polls,
        starved: cause("starved"),
        suspended: cause("suspended"),
        busy_host: reason("busy_host"),
        cpu_limit: reason("cpu_limit"),
    }
}

async fn poll_for_ever() {
    loop {
        let start = cpu_time();
        // By CPU time, so it does the same work on a busy host.
        while cpu_time() - start < Duration::from_millis(1) {}
        tokio::task::yield_now().await;
    }
}

fn cpu_time() -> Duration {
    let schedstat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanos = schedstat.split(' ').next().unwrap().parse().unwrap();
    Duration::from_nanos(nanos)
}

const CHILD: &str = "SHOTCLOCK_TEST_CHILD";

/// Runs the scenario of a child process. It is no test by itself.
#[test]
fn child() {
    if std::env::var_os(CHILD).is_some() {
        well_behaved_service().print();
    }
}

/// The service in its own process.
struct Service {
    child: Child,
}

impl Service {
    fn start() -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["child", "--exact", "--nocapture"]);
        command.env(CHILD, "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn().unwrap();
        Self { child }
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let killed = Command::new("kill").args(["-s", name, &id]).status();
        assert!(killed.unwrap().success());
    }

    fn stop(mut self) -> Outcome {
        drop(self.child.stdin.take());
        let output = self.child.wait_with_output().unwrap();
        assert!(output.status.success());
        Outcome::parse(&String::from_utf8(output.stdout).unwrap())
    }
}

/// One scenario at a time, because each changes the load of the machine.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs until a poll was starved, for at least `at_least` and at most a minute.
fn busy_host(at_least: Duration) -> Outcome {
    let _alone = alone();
    let _spinners = Spinners::start(8);
    let service = Service::start();
    std::thread::sleep(at_least);
    service.stop()
}

#[test]
fn busy_host_causes_no_report() {
    let outcome = busy_host(Duration::from_secs(6));
    println!("{outcome:?}");
    assert_eq!(outcome.reports, 0);
    assert!(outcome.starved > 0, "{outcome:?}");
    assert_eq!(outcome.busy_host + outcome.cpu_limit, outcome.starved);
}

#[test]
#[ignore = "takes 20 s: the longer run of the test above"]
fn busy_host_for_20_seconds_causes_no_report() {
    let outcome = busy_host(Duration::from_secs(20));
    println!("{outcome:?}");
    assert_eq!(outcome.reports, 0);
    assert!(outcome.starved > 0);
}

fn stopped_for_two_seconds() -> Outcome {
    let service = Service::start();
    std::thread::sleep(Duration::from_millis(500));
    service.signal("STOP");
    std::thread::sleep(Duration::from_secs(2));
    service.signal("CONT");
    std::thread::sleep(Duration::from_millis(500));
    let outcome = service.stop();
    println!("{outcome:?}");
    outcome
}

#[test]
fn stopped_process_on_a_busy_host_causes_no_report() {
    let _alone = alone();
    let _spinners = Spinners::start(4);
    let outcome = stopped_for_two_seconds();
    assert_eq!(outcome.reports, 0);
}

#[test]
fn stopped_process_causes_no_report() {
    let _alone = alone();
    // A poll that was starved before the stop counts as starved.
    let was_noticed = |_| {
        let outcome = stopped_for_two_seconds();
        assert_eq!(outcome.reports, 0);
        outcome.suspended > 0
    };
    assert!((0..5).any(was_noticed));
}

/// A cgroup of this test, with a limit of a fifth of a CPU.
struct Group(PathBuf);

impl Group {
    fn make() -> Result<Self, String> {
        let name = format!("shotclock-{}", std::process::id());
        let v2 = PathBuf::from("/sys/fs/cgroup");
        let v1 = v2.join("cpu");
        let (path, limits) = if v1.is_dir() {
            let limits = [
                ("cpu.cfs_period_us", "100000"),
                ("cpu.cfs_quota_us", "20000"),
            ];
            (v1.join(name), limits.to_vec())
        } else {
            (v2.join(name), vec![("cpu.max", "20000 100000")])
        };
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let group = Self(path);
        for (file, limit) in limits {
            fs::write(group.0.join(file), limit).map_err(|error| format!("{file}: {error}"))?;
        }
        Ok(group)
    }

    fn hold(&self, service: &Service) {
        fs::write(self.0.join("cgroup.procs"), service.child.id().to_string()).unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn throttled_polls_are_counted_as_throttled() {
    let _alone = alone();
    let group = match Group::make() {
        Ok(group) => group,
        Err(why) => {
            println!("SKIPPED: no control group can be made here: {why}");
            return;
        }
    };
    // The limit exists before the crate reads it.
    let service = Service::start();
    group.hold(&service);
    let start = Instant::now();
    std::thread::sleep(Duration::from_secs(4));
    let outcome = service.stop();
    println!("{outcome:?} in {:?}", start.elapsed());
    assert_eq!(outcome.reports, 0);
    assert!(outcome.starved > 0 && outcome.cpu_limit > 0, "{outcome:?}");
}

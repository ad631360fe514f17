//! The text for Prometheus, read by an independent parser.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use prometheus_parse::{Sample, Scrape, Value};
use shotclock::prometheus::{self, Exporter};
use shotclock::{Lane, WatchExt as _, Watchdog, offload};

/// The process has one recorder, so the tests share an exporter.
fn exporter() -> &'static Exporter {
    static EXPORTER: OnceLock<Exporter> = OnceLock::new();
    EXPORTER.get_or_init(|| prometheus::install("127.0.0.1:0".parse().unwrap()).unwrap())
}

fn watchdog() -> Watchdog {
    Watchdog::builder().without_tracing().build().unwrap()
}

fn parse(text: &str) -> Vec<Sample> {
    Scrape::parse(text.lines().map(|line| Ok(line.to_owned())))
        .unwrap()
        .samples
}

fn of_watch<'s>(samples: &'s [Sample], metric: &str, watch: &str) -> Vec<&'s Sample> {
    let named = samples.iter().filter(|sample| sample.metric == metric);
    named
        .filter(|sample| sample.labels.get("watch") == Some(watch))
        .collect()
}

fn number(sample: &Sample) -> f64 {
    match &sample.value {
        Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => *value,
        other => panic!("{other:?}"),
    }
}

fn get(address: SocketAddr, request: &str) -> String {
    get_of(address, request, "localhost")
}

fn get_of(address: SocketAddr, request: &str, host: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "{request}\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn metrics_of_a_new_watch_are_zero() {
    let exporter = exporter();
    let watchdog = watchdog();
    let _watch = watchdog.watch("at 0");
    let text = exporter.render();
    let samples = parse(&text);
    let of_watches = [
        "shotclock_polls_total",
        "shotclock_poll_busy_seconds_total",
        "shotclock_panicked_polls_total",
        "shotclock_contained_polls_total",
        "shotclock_polls_in_flight",
        "shotclock_stalls_in_flight",
    ];
    let slow = of_watch(&samples, "shotclock_slow_polls_total", "at 0");
    let mut causes: Vec<_> = slow
        .iter()
        .map(|s| s.labels.get("cause").unwrap())
        .collect();
    causes.sort();
    let every = ["blocked", "computing", "starved", "suspended", "unknown"];
    assert_eq!(causes, every);
    assert!(slow.iter().all(|sample| number(sample) == 0.0));
    for metric in of_watches {
        let found = of_watch(&samples, metric, "at 0");
        assert_eq!(found.len(), 1, "{metric} in {text}");
        assert_eq!(number(found[0]), 0.0, "{metric}");
    }
    for metric in [
        "shotclock_poll_duration_seconds",
        "shotclock_slow_poll_duration_seconds",
    ] {
        let found = of_watch(&samples, metric, "at 0");
        let [
            Sample {
                value: Value::Histogram(buckets),
                ..
            },
        ] = found[..]
        else {
            panic!("{metric}: {found:?}")
        };
        assert_eq!(buckets.len(), 23);
        assert!(buckets.iter().all(|bucket| bucket.count == 0.0));
        assert_eq!((buckets[0].less_than, buckets[21].less_than), (1e-6, 10.0));
    }
    let others = [
        ("shotclock_reports_dropped_total", None),
        (
            "shotclock_reports_suppressed_total",
            Some(("reason", "rate_limit")),
        ),
        ("shotclock_oldest_stall_seconds", None),
        (
            "shotclock_reports_suppressed_total",
            Some(("reason", "busy_host")),
        ),
        (
            "shotclock_reports_suppressed_total",
            Some(("reason", "cpu_limit")),
        ),
        (
            "shotclock_reports_suppressed_total",
            Some(("reason", "reporter_thread")),
        ),
        ("shotclock_offload_in_flight", Some(("lane", "cpu"))),
        ("shotclock_offload_queued", Some(("lane", "cpu"))),
        ("shotclock_offload_rejected_total", Some(("lane", "cpu"))),
        ("shotclock_offload_panics_total", Some(("lane", "cpu"))),
        ("shotclock_offload_wait_seconds", Some(("lane", "cpu"))),
        ("shotclock_offload_run_seconds", Some(("lane", "cpu"))),
    ];
    for (metric, label) in others {
        let labelled =
            |sample: &&Sample| label.is_none_or(|(k, v)| sample.labels.get(k) == Some(v));
        let named = samples.iter().filter(|sample| sample.metric == metric);
        assert_eq!(
            named.filter(labelled).count(),
            1,
            "{metric} {label:?} in {text}"
        );
    }
}

#[test]
fn metrics_have_help_and_type_and_no_duplicate() {
    let (first, second) = (watchdog(), watchdog());
    for watchdog in [&first, &second] {
        drop(watchdog.watch("twice").enter());
    }
    let text = exporter().render();
    let mut seen = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let series = match line.strip_prefix("# ") {
            Some(_) => line.split(' ').take(3).collect::<Vec<_>>().join(" "),
            None => line.rsplit_once(' ').unwrap().0.to_owned(),
        };
        *seen.entry(series).or_insert(0) += 1;
    }
    let twice: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    let samples = parse(&text);
    let polls = of_watch(&samples, "shotclock_polls_total", "twice");
    assert_eq!(number(polls[0]), 2.0, "watches of one name are added up");
    for sample in &samples {
        // The parser returns the sum and the count of a histogram as separate samples.
        let metric = sample
            .metric
            .trim_end_matches("_sum")
            .trim_end_matches("_count");
        for head in ["HELP", "TYPE"] {
            let head = format!("# {head} {metric}");
            assert!(seen.contains_key(&head), "{head}");
        }
    }
}

#[test]
fn histogram_agrees_with_the_counters() {
    let watchdog = watchdog();
    // A destructor of a starved thread would count as a slow poll.
    let watch = watchdog
        .watch("agrees")
        .with_budget(Duration::from_secs(3_600));
    for _ in 0..1_000 {
        futures::executor::block_on(async {}.watched(&watch));
    }
    let samples = parse(&exporter().render());
    let polls = number(of_watch(&samples, "shotclock_polls_total", "agrees")[0]);
    let distribution = of_watch(&samples, "shotclock_poll_duration_seconds", "agrees");
    let Value::Histogram(buckets) = &distribution[0].value else {
        panic!("{distribution:?}")
    };
    assert_eq!(polls, 1_000.0);
    assert_eq!(buckets.last().unwrap().count, 1_000.0);
    assert!(buckets.is_sorted_by(|a, b| a.count <= b.count && a.less_than < b.less_than));
    let busy = number(of_watch(&samples, "shotclock_poll_busy_seconds_total", "agrees")[0]);
    assert_eq!(busy, watch.stats().busy.as_secs_f64());
}

#[test]
fn hostile_names_stay_in_their_label() {
    let watchdog = watchdog();
    let names = [
        "say \"hi\"",
        "line\nbreak",
        "back\\slash",
        "<script>",
        "ünï",
        "{}=,",
        "end\\",
    ];
    for name in names {
        drop(watchdog.watch(name).enter());
    }
    drop(watchdog.watch("").enter());
    let text = exporter().render();
    check_by_promtool(&text);
    for part in [
        r#"watch="say \"hi\"""#,
        r#"watch="line\nbreak""#,
        r#"watch="<script>""#,
        r#"watch="unnamed""#,
    ] {
        assert!(text.contains(part), "{part}");
    }
    // Six metrics of the facade and two rendered ones have one name in one spelling.
    for name in ["ünï", "{}=,", "<script>"] {
        let of_name = text
            .lines()
            .filter(|line| line.contains(&format!("watch=\"{name}\"")));
        assert!(of_name.count() > 2 * 23, "{name}");
    }
}

/// Without promtool, the test prints that it is skipped.
fn check_by_promtool(text: &str) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]);
    let command = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let Ok(mut promtool) = command.spawn() else {
        eprintln!("SKIPPED: promtool is not installed (Debian package `prometheus`)");
        return;
    };
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[tokio::test]
async fn promtool_accepts_the_metrics() {
    let exporter = exporter();
    let watchdog = watchdog();
    let watch = watchdog.watch("promtool");
    async {}.watched(&watch.with_budget(Duration::ZERO)).await;
    offload(|| ()).await.unwrap();
    check_by_promtool(&exporter.render());
}

#[tokio::test]
async fn offload_metrics_count_closures() {
    let exporter = exporter();
    for _ in 0..10 {
        offload(|| ()).await.unwrap();
    }
    assert!(offload(|| panic!("counted")).await.is_err());
    let samples = parse(&exporter.render());
    let lane = |metric: &str| of_lane(&samples, metric, "cpu");
    for metric in [
        "shotclock_offload_wait_seconds",
        "shotclock_offload_run_seconds",
    ] {
        let Value::Histogram(buckets) = &lane(metric).value else {
            panic!("{metric}")
        };
        // Other tests of this process offload too.
        assert!(buckets.last().unwrap().count >= 11.0, "{metric}");
    }
    assert_eq!(number(lane("shotclock_offload_panics_total")), 1.0);
}

fn of_lane<'s>(samples: &'s [Sample], metric: &str, lane: &str) -> &'s Sample {
    let mut named = samples.iter().filter(|sample| sample.metric == metric);
    let of_lane = named.find(|sample| sample.labels.get("lane") == Some(lane));
    of_lane.unwrap_or_else(|| panic!("no {metric} of {lane}"))
}

#[tokio::test]
async fn lane_metrics_count_running_queued_and_refused() {
    let exporter = exporter();
    let lane = Lane::builder("thumbnails")
        .limit(1)
        .queue(1)
        .build()
        .unwrap();
    let number_of = |metric: &str| {
        let samples = parse(&exporter.render());
        number(of_lane(&samples, metric, "thumbnails"))
    };
    let counts = [
        "shotclock_offload_in_flight",
        "shotclock_offload_queued",
        "shotclock_offload_rejected_total",
        "shotclock_offload_panics_total",
        "shotclock_offload_inline_total",
    ];
    assert_eq!(counts.map(number_of), [0.0; 5]);

    let (started, starts) = tokio::sync::oneshot::channel();
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let mine = lane.clone();
    let running = tokio::spawn(async move {
        let _ = mine.run(move || (started.send(()), gate.recv())).await;
    });
    starts.await.unwrap();
    let mine = lane.clone();
    let queued = tokio::spawn(async move { mine.run(|| panic!("counted")).await });
    while lane.stats().queued == 0 {
        tokio::task::yield_now().await;
    }
    assert!(lane.try_run(|| ()).await.is_err());
    assert_eq!(counts.map(number_of), [1.0, 1.0, 1.0, 0.0, 0.0]);
    drop(open);
    running.await.unwrap();
    assert!(queued.await.unwrap().is_err());
    let mine = lane.clone();
    let nested = lane.run(move || futures::executor::block_on(mine.run(|| ())));
    nested.await.unwrap().unwrap();
    assert_eq!(counts.map(number_of), [0.0, 0.0, 1.0, 1.0, 1.0]);

    let samples = parse(&exporter.render());
    for metric in [
        "shotclock_offload_wait_seconds",
        "shotclock_offload_run_seconds",
    ] {
        let Value::Histogram(buckets) = &of_lane(&samples, metric, "thumbnails").value else {
            panic!("{metric}")
        };
        assert_eq!(buckets.last().unwrap().count, 4.0, "{metric}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn contained_poll_metric_counts() {
    let builder = Watchdog::builder()
        .without_tracing()
        .budget(Duration::from_millis(1));
    let watch = builder.build().unwrap().watch("contained").contained();
    let mine = watch.clone();
    let slow = async move {
        while mine.stats().contained_polls == 0 {
            std::thread::sleep(Duration::from_millis(5));
            tokio::task::yield_now().await;
        }
    };
    tokio::spawn(slow.watched(&watch)).await.unwrap();
    let samples = parse(&exporter().render());
    let counted = of_watch(&samples, "shotclock_contained_polls_total", "contained");
    assert_eq!(number(counted[0]), watch.stats().contained_polls as f64);
}

#[test]
fn scrape_of_a_stuck_runtime_is_answered() {
    let address = exporter().local_addr().unwrap();
    let watchdog = watchdog();
    let watch = watchdog.watch("stuck");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let (unblock, blocked) = std::sync::mpsc::channel::<()>();
    let (started, starts) = std::sync::mpsc::channel();
    let stuck = std::thread::spawn(move || {
        let blocks = async move {
            started.send(()).unwrap();
            let _ = blocked.recv();
        };
        runtime.block_on(blocks.watched(&watch));
    });
    starts.recv().unwrap();
    let answer = get(address, "GET /metrics HTTP/1.1");
    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    let in_flight = parse(text);
    let in_flight = of_watch(&in_flight, "shotclock_polls_in_flight", "stuck");
    assert_eq!(number(in_flight[0]), 1.0);
    drop(unblock);
    stuck.join().unwrap();
}

/// Scrapes continue while runtimes end. None fails, and no counter decreases.
#[test]
fn scrape_during_a_shutdown_loses_no_count() {
    const ROUNDS: u64 = 30;
    let address = exporter().local_addr().unwrap();
    let watchdog = watchdog();
    let watch = watchdog.watch("ending");
    let polls = || {
        let answer = get(address, "GET /metrics HTTP/1.1");
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        number(of_watch(&parse(text), "shotclock_polls_total", "ending")[0]) as u64
    };
    let mut before = polls();
    std::thread::scope(|scope| {
        let ending = scope.spawn(|| {
            for _ in 0..ROUNDS {
                let mut builder = tokio::runtime::Builder::new_multi_thread();
                let runtime = builder.worker_threads(2).build().unwrap();
                let _guard = watchdog.guard("ending", runtime.handle());
                // One task ends, and one is dropped with the runtime.
                let pending = std::future::pending::<()>().watched(&watch);
                runtime.spawn(pending);
                let ends = runtime.spawn(std::future::ready(()).watched(&watch));
                runtime.block_on(ends).unwrap();
                drop(runtime);
            }
        });
        while !ending.is_finished() {
            let now = polls();
            assert!(now >= before, "{now} after {before}");
            before = now;
        }
    });
    assert!((ROUNDS..=2 * ROUNDS).contains(&watch.stats().polls));
    assert!(watchdog.flush(Duration::from_secs(60)));
    let rendered = parse(&exporter().render());
    let rendered = number(of_watch(&rendered, "shotclock_polls_total", "ending")[0]);
    assert_eq!(rendered as u64, watch.stats().polls);
}

#[test]
fn listener_answers_get_of_metrics_only() {
    let address = exporter().local_addr().unwrap();
    assert!(get(address, "POST /metrics HTTP/1.1").starts_with("HTTP/1.1 405"));
    assert!(get(address, "GET /other HTTP/1.1").starts_with("HTTP/1.1 404"));
    assert!(get(address, "HEAD /metrics HTTP/1.1").starts_with("HTTP/1.1 200"));
}

#[test]
fn request_for_a_foreign_host_is_refused() {
    // The exporter and its allowed hosts are shared, so this name is different from those of other tests.
    let exporter = exporter();
    let address = exporter.local_addr().unwrap();
    let status = |request: &str, host: &str| {
        let answer = get_of(address, request, host);
        let (status, body) = (
            answer[9..12].to_owned(),
            answer.contains("shotclock_polls_total"),
        );
        (status, body)
    };
    let scrape = "GET /metrics HTTP/1.1";
    let scraped = ("200".to_owned(), true);
    let refused = ("421".to_owned(), false);
    let loopback = address.to_string();
    let _watch = watchdog().watch("scraped");
    for host in [
        "localhost",
        "127.0.0.1",
        "[::1]:9000",
        "app.localhost:80",
        &loopback,
    ] {
        assert_eq!(status(scrape, host), scraped, "{host}");
    }
    for host in [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.nip.example",
    ] {
        assert_eq!(status(scrape, host), refused, "{host}");
        assert_eq!(status("POST /other HTTP/1.1", host), refused, "{host}");
        let proxied = format!("GET http://{host}/metrics HTTP/1.1");
        assert_eq!(status(&proxied, "localhost"), refused, "{host}");
    }
    let told = get_of(address, scrape, "evil.example");
    assert!(told.contains("Exporter::allow_host"), "{told}");
    assert_eq!(status(scrape, "allowed.internal"), refused);
    exporter.allow_host("Allowed.Internal").unwrap();
    assert_eq!(status(scrape, "allowed.internal:9000"), scraped);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
}

#[test]
fn slow_polls_by_cause_after_a_flush_sum_to_the_slow_polls() {
    // A poll that ends just over its budget was probably not scanned, so its cause is decided later.
    const BUDGET: Duration = Duration::from_millis(5);
    let (exporter, watchdog) = (exporter(), watchdog());
    let watch = watchdog.watch("by cause");
    let watch = watch.with_budget(BUDGET);
    let by_cause = || -> f64 {
        let samples = parse(&exporter.render());
        let by_cause = of_watch(&samples, "shotclock_slow_polls_total", "by cause");
        by_cause.into_iter().map(number).sum()
    };
    std::thread::scope(|scope| {
        let make = || {
            for _ in 0..100 {
                let _entered = watch.enter();
                std::thread::sleep(BUDGET);
            }
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(make)).collect();
        // The counters of a recorder keep each published batch.
        while !threads.iter().all(|thread| thread.is_finished()) {
            let sum = by_cause();
            assert!(sum <= watch.stats().slow_polls as f64);
        }
    });
    assert!(watchdog.flush(Duration::from_secs(60)));
    assert_eq!(watch.stats().slow_polls, 400);
    assert_eq!(by_cause(), 400.0);
}

#[test]
fn install_on_a_taken_port_is_an_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = exporter().clone().serve(address).unwrap_err();
    assert!(error.is_address_in_use());
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[test]
fn install_after_another_recorder_is_an_error() {
    exporter();
    let error = prometheus::install("127.0.0.1:0".parse().unwrap()).unwrap_err();
    assert!(error.is_recorder_taken());
    assert!(error.to_string().contains("Exporter::new"), "{error}");
}

#[tokio::test]
async fn install_in_async_code_returns_the_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let exporter = exporter().clone();
    let error = exporter.serve(taken.local_addr().unwrap()).unwrap_err();
    assert!(error.is_address_in_use());
    let error = prometheus::install("127.0.0.1:0".parse().unwrap()).unwrap_err();
    assert!(error.is_recorder_taken());
}

#[test]
fn global_label_replaces_its_first_value() {
    let watchdog = watchdog();
    drop(watchdog.watch("labelled").enter());
    let exporter = exporter().clone();
    let exporter = exporter.global_label("zone", "a").global_label("zone", "b");
    let text = exporter.global_label("watch", "mine").render();
    assert!(
        text.contains(r#"_count{zone="b",watch="labelled"} 1"#),
        "{text}"
    );
}

//! The debug page: its data, and its display in a browser.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use shotclock::page::{Page, router};
use shotclock::{Watch, Watchdog, offload};
use tower::ServiceExt as _;

const MS: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(60);
const HOSTILE: &str = "<script>document.title='broken in'</script>";

fn watchdog() -> Watchdog {
    let builder = Watchdog::builder().without_tracing().budget(5 * MS);
    let watchdog = builder.build().unwrap();
    // The first stacks need the unwind tables.
    assert!(watchdog.capabilities().to_string().contains("stacks"));
    watchdog
}

#[inline(never)]
fn dream_of_electric_sheep(time: Duration) {
    thread::sleep(time);
}

fn state(page: &Page) -> Value {
    let answer = page.answer("/state.json");
    assert_eq!(
        (answer.status, answer.content_type),
        (200, "application/json")
    );
    serde_json::from_slice(&answer.body).unwrap()
}

fn culprit(state: &Value, column: &str, value: &str) -> Option<Value> {
    let culprits = state["culprits"].as_array().unwrap();
    let mut culprits = culprits.iter();
    culprits.find(|culprit| culprit[column] == value).cloned()
}

/// Holds a thread in a poll until the sender is dropped.
fn stall(watch: &Watch) -> (Sender<()>, thread::JoinHandle<()>) {
    let (release, held) = mpsc::channel();
    let watch = watch.clone();
    let stuck = move || {
        let _poll = watch.enter();
        let _ = held.recv_timeout(PATIENCE);
    };
    let thread = thread::Builder::new().name("stuck-thread".into());
    (release, thread.spawn(stuck).unwrap())
}

#[test]
fn page_shows_stalls_slow_polls_and_culprits() {
    let watchdog = watchdog();
    let page = Page::new(&watchdog);
    let slow = watchdog.watch("slow");
    // On a busy host a poll may be starved, or have a part of its stack only.
    let mut rounds = 0;
    while culprit(&state(&page), "function", "page::dream_of_electric_sheep").is_none() {
        rounds += 1;
        {
            let _poll = slow.enter();
            dream_of_electric_sheep(30 * MS);
        }
        assert!(watchdog.flush(PATIENCE));
    }
    drop(watchdog.watch(HOSTILE).enter());
    let (release, thread) = stall(&watchdog.watch("stuck"));
    while state(&page)["stalls"].as_array().unwrap().is_empty() {
        thread::sleep(MS);
    }
    let now = state(&page);
    assert_eq!(now["health"]["status"], "stalled");
    let stall = &now["stalls"][0];
    assert_eq!(
        (&stall["watch"], &stall["phase"]),
        (&"stuck".into(), &"running".into())
    );
    assert!(!stall["stack"].as_array().unwrap().is_empty(), "{stall}");
    assert!(
        stall["hint"].as_str().unwrap().contains("tokio::sync"),
        "{stall}"
    );
    // The worst watch is first.
    let watches = now["watches"].as_array().unwrap();
    let names: Vec<_> = watches
        .iter()
        .map(|watch| watch["watch"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["stuck", "slow", HOSTILE]);
    let polls: u64 = watches[1]["histogram"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cell| cell[1].as_u64().unwrap())
        .sum();
    assert_eq!(polls, rounds);
    let threads = now["threads"].as_array().unwrap();
    // Threads of other tests are there too, because threads belong to the process.
    let is_mine = |thread: &&Value| thread["polls"][0]["watch"] == "stuck";
    let stuck = threads.iter().find(is_mine).unwrap();
    assert_eq!(stuck["thread"], "stuck-thread");
    assert_eq!(stuck["polls"][0]["is_stalled"], true);

    release.send(()).unwrap();
    thread.join().unwrap();
    assert!(watchdog.flush(PATIENCE));
    let now = state(&page);
    assert_eq!(now["health"]["status"], "responsive");
    assert_eq!(now["stalls"], Value::Array(Vec::new()));
    assert_eq!(now["recent"][0]["watch"], "stuck", "the latest first");
    assert_eq!(now["recent"][1]["phase"], "finished");
    let dreamer = culprit(&now, "function", "page::dream_of_electric_sheep").unwrap();
    assert!((1..=rounds).contains(&dreamer["count"].as_u64().unwrap()));
    let stuck = culprit(&now, "watch", "stuck").unwrap_or_else(|| panic!("{now}"));
    assert!(stuck["over_budget"].as_f64().unwrap() > 0.0);
    let folded = String::from_utf8(page.answer("/stacks.folded").body).unwrap();
    assert!(folded.contains("slow;"), "{folded}");
}

#[test]
fn flight_record_has_slow_polls_with_cause_and_stack() {
    let watchdog = watchdog();
    let watch = watchdog.watch("recorded").with_budget(20 * MS);
    for time in [MS, 15 * MS] {
        let _poll = watch.enter();
        dream_of_electric_sheep(time);
    }
    // On a busy host a poll may be starved, or have a part of its stack only.
    let (record, slow) = loop {
        {
            let _poll = watch.enter();
            dream_of_electric_sheep(40 * MS);
        }
        assert!(watchdog.flush(PATIENCE));
        let record: Value = serde_json::from_str(&watchdog.flight_record()).unwrap();
        let events = record["traceEvents"].as_array().unwrap();
        let has_stack = |event: &&Value| {
            let stack = event["args"]["stack"].to_string();
            stack.contains("dream_of_electric_sheep")
        };
        if let Some(slow) = events.iter().find(has_stack).cloned() {
            break (record, slow);
        }
    };
    let events = record["traceEvents"].as_array().unwrap();
    let is_mine = |event: &&Value| event["name"] == "recorded";
    let mut mine = events.iter().filter(is_mine);
    let over_half = |event: &Value| event["dur"].as_f64().unwrap() > 10_000.0;
    assert!(mine.all(over_half), "{record}");
    assert_eq!(
        (&slow["name"], &slow["cat"]),
        (&"recorded".into(), &"slow".into())
    );
    assert!(slow["dur"].as_f64().unwrap() > 20_000.0, "{slow}");
    let cause = slow["args"]["cause"].as_str().unwrap();
    assert!(cause.contains("nanosleep"), "{slow}");
    let is_track = |event: &&Value| event["ph"] == "M" && event["tid"] == slow["tid"];
    assert!(events.iter().any(|event| is_track(&event)), "{record}");
}

#[tokio::test]
async fn router_answers_below_its_path_only() {
    let watchdog = watchdog();
    let app: axum::Router = axum::Router::new().nest("/debug/shotclock", router(&watchdog));
    let status_of = async |path: &str| {
        let request = axum::http::Request::get(path)
            .body(axum::body::Body::empty())
            .unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        let kind = response.headers()["content-type"]
            .to_str()
            .unwrap()
            .to_owned();
        (response.status().as_u16(), kind)
    };
    let (status, kind) = status_of("/debug/shotclock").await;
    assert_eq!((status, &*kind), (200, "text/html; charset=utf-8"));
    let (status, kind) = status_of("/debug/shotclock/state.json").await;
    assert_eq!((status, &*kind), (200, "application/json"));
    assert_eq!(status_of("/debug/shotclock/else").await.0, 404);
}

#[test]
fn exporter_serves_the_page_only_after_show_page() {
    let exporter = shotclock::prometheus::install("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = exporter.local_addr().unwrap();
    let watchdog = watchdog();
    assert!(ask(address, "/debug/shotclock").starts_with("HTTP/1.1 404"));
    exporter.show_page(&watchdog);
    let page = ask(address, "/debug/shotclock");
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("<title>shotclock</title>"));
    assert!(ask(address, "/debug/shotclock/state.json").contains("\"health\""));
    assert!(ask(address, "/debug").starts_with("HTTP/1.1 404"));
}

fn ask(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// Opens the page in a frame, clicks on the first stall, waits for a refresh, and sends the text to the server.
const VISITOR: &str = r#"<!doctype html><title>visitor</title>
<iframe id=frame src="/" width=1200 height=900></iframe><script>
const frame = document.getElementById('frame');
const inside = () => frame.contentDocument;
const until = async wanted => { while (!wanted()) await new Promise(next => setTimeout(next, 50)); };
(async () => {
  await until(() => inside()?.querySelector('#stalls summary'));
  const first = inside().querySelector('#stalls details');
  const before = first.open;
  inside().querySelector('#stalls summary').click();
  await until(() => inside().querySelector('#stalls details') !== first);
  const again = inside().querySelector('#stalls details');
  const seen = {
    open: [before, again.open],
    status: inside().getElementById('status').textContent,
    stalls: inside().getElementById('stalls').textContent,
    scripts: inside().querySelectorAll('main script').length,
    title: inside().title,
    sections: [...inside().querySelectorAll('section')].map(section => section.id),
  };
  fetch('/seen', { method: 'POST', body: JSON.stringify(seen) });
})();
</script>"#;

/// Runs a server on its own thread. It sends each received text through the channel.
fn serve(page: Page) -> (SocketAddr, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (told, tells) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            // A browser may open unused connections.
            let (page, told) = (page.clone(), told.clone());
            thread::spawn(move || converse(stream.unwrap(), &page, &told));
        }
    });
    (address, tells)
}

fn converse(mut stream: TcpStream, page: &Page, told: &Sender<Value>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap();
    if path == "/seen" {
        let body = serde_json::Deserializer::from_reader(&stream);
        let _ = told.send(body.into_iter().next().unwrap().unwrap());
    }
    let answer = page.answer(path);
    let (kind, body) = match path {
        "/visitor" => ("text/html", VISITOR.as_bytes().to_vec()),
        _ => (answer.content_type, answer.body),
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(&body);
}

fn browser() -> Option<&'static str> {
    let is_there = |name: &&str| Command::new(name).arg("--version").output().is_ok();
    ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(is_there)
}

#[test]
fn page_in_a_browser_shows_a_stall_and_runs_no_foreign_script() {
    let Some(browser) = browser() else {
        eprintln!("SKIPPED: there is no browser (Debian package `chromium`)");
        return;
    };
    let watchdog = watchdog();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let _guard = watchdog.guard(HOSTILE, runtime.handle());
    runtime.block_on(offload(|| ())).unwrap();
    {
        let watch = watchdog.watch(HOSTILE);
        let _poll = watch.enter();
        dream_of_electric_sheep(30 * MS);
    }
    let (release, thread) = stall(&watchdog.watch(format!("stuck {HOSTILE}")));
    let (address, tells) = serve(Page::new(&watchdog));
    let profile = std::env::temp_dir().join(format!("shotclock-page-{}", std::process::id()));
    // The files of a killed browser are in there too.
    std::fs::create_dir_all(&profile).unwrap();
    let mut visit = Command::new(browser)
        .env("TMPDIR", &profile)
        .args(["--headless", "--no-sandbox", "--disable-gpu"])
        .args(["--enable-logging=stderr", "--remote-debugging-port=0"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("http://{address}/visitor"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let seen = tells.recv_timeout(PATIENCE);
    visit.kill().unwrap();
    let log = visit.wait_with_output().unwrap().stderr;
    let log = String::from_utf8_lossy(&log);
    let _ = std::fs::remove_dir_all(profile);
    drop(release);
    thread.join().unwrap();

    let seen = seen.unwrap_or_else(|_| panic!("the browser saw nothing\n{log}"));
    assert_eq!(seen["open"], serde_json::json!([false, true]), "{seen}");
    assert_eq!(
        (&seen["status"], &seen["title"]),
        (&"stalled".into(), &"shotclock".into())
    );
    let stalls = seen["stalls"].as_str().unwrap();
    assert!(
        stalls.contains("page::stall") && stalls.contains(HOSTILE),
        "{seen}"
    );
    assert_eq!(seen["scripts"], 0);
    let sections = [
        "stalls", "watches", "runtimes", "threads", "culprits", "recent", "lanes",
    ];
    assert_eq!(seen["sections"], serde_json::json!(sections));
    let complaints: Vec<_> = log
        .lines()
        .filter(|line| line.contains("CONSOLE"))
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

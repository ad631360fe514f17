//! The page's data of watches and threads with hostile names.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::{Input, assert_is_table};
use crate::clock::Clock;
use crate::page::{Answer, Page};
use crate::watchdog::Watchdog;

/// Builds the page's data, the trace and the tables. Each has every name as it went in, and the page answers no other
/// path than its own.
pub fn page(data: &[u8]) {
    let mut input = Input::new(data);
    let (clock, time) = Clock::mock();
    let builder = Watchdog::builder().without_tracing();
    let watchdog = builder.clock(clock).build();
    let watchdog = watchdog.expect("the settings are good");
    let thread = input.name().replace('\0', "");
    let names: Vec<_> = (0..1 + input.below(3)).map(|_| input.name()).collect();
    let polls: Vec<_> = names.iter().map(|_| input.number() >> 24).collect();
    let run = || {
        for (name, elapsed) in names.iter().zip(&polls) {
            let watch = watchdog.watch(name.clone());
            let _poll = watch.enter();
            time.increment(Duration::from_nanos(*elapsed));
        }
    };
    // Only sometimes: a thread costs more time than all the rest.
    let is_named = input.below(8) == 0;
    if is_named {
        std::thread::scope(|scope| {
            let named = std::thread::Builder::new().name(thread.clone());
            let ran = named.spawn_scoped(scope, run);
            ran.expect("a thread can be started")
                .join()
                .expect("it does not panic");
        });
    } else {
        run();
    }
    assert!(
        watchdog.flush(Duration::from_secs(60)),
        "the archive did not come"
    );
    let page = Page::new(&watchdog);
    let known: BTreeSet<_> = names.iter().map(|name| shown(name)).collect();
    let watches = assert_has_watches(&page, &known);
    assert_has_reports(&page, &polls, is_named.then_some(&*thread));
    assert_is_trace(&page);
    assert_is_table(&watchdog.snapshot().to_string(), watches);
    assert_eq!(watchdog.culprits().folded(), "", "no poll was sampled");
    assert_finds(&page, &input.name());
}

/// The name of a watch; an empty one becomes `unnamed`.
fn shown(name: &str) -> &str {
    if name.is_empty() { "unnamed" } else { name }
}

fn json(answer: &Answer) -> Value {
    assert_eq!(
        (answer.status, answer.content_type),
        (200, "application/json")
    );
    serde_json::from_slice(&answer.body).expect("it is JSON")
}

fn strings<'v>(list: &'v Value, field: &str) -> Vec<&'v str> {
    let list = list.as_array().expect("a list");
    let text = |item: &'v Value| item[field].as_str().expect("a string");
    list.iter().map(text).collect()
}

fn assert_has_watches(page: &Page, known: &BTreeSet<&str>) -> usize {
    let state = json(&page.answer("/state.json"));
    let watches = strings(&state["watches"], "watch");
    assert_eq!(watches.iter().copied().collect::<BTreeSet<_>>(), *known);
    assert_eq!(watches.len(), known.len(), "none comes twice");
    watches.len()
}

/// Asserts that each slow poll is among the recent reports, under the name of its thread.
fn assert_has_reports(page: &Page, polls: &[u64], thread: Option<&str>) {
    const BUDGET: u64 = 10_000_000;
    let state = json(&page.answer("/state.json"));
    let slow = polls.iter().filter(|nanos| **nanos > BUDGET).count();
    let threads = strings(&state["recent"], "thread");
    assert_eq!(threads.len(), slow, "{polls:?}");
    if let Some(thread) = thread {
        assert!(threads.iter().all(|name| *name == thread), "{threads:?}");
    }
}

fn assert_is_trace(page: &Page) {
    let trace = json(&page.answer("/flight.json"));
    for event in trace["traceEvents"].as_array().expect("a list") {
        assert!(
            event["name"].is_string() && event["ph"].is_string(),
            "{event}"
        );
    }
}

fn assert_finds(page: &Page, path: &str) {
    let pages = ["", "/", "/state.json", "/stacks.folded", "/flight.json"];
    let answer = page.answer(path);
    let expected = if pages.contains(&path) { 200 } else { 404 };
    assert_eq!(answer.status, expected, "{path:?}");
    if expected == 404 {
        assert_eq!(answer.body, b"no such page\n");
    }
}

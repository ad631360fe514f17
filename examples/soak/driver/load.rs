//! The clients: the requests that they draw, and the answers that they expect.

use std::time::Duration;

use futures::future::join_all;
use hyper::StatusCode;
use tokio::time::{Instant, sleep, timeout};

use super::client_counts::ClientCounts;
use super::http::Connection;
use crate::random::Random;

/// The apps with the same routes: one for each watchdog.
pub(super) const APPS: [&str; 2] = ["exact", "ticked"];

const CLIENTS: u64 = 24;
/// The mean time between two requests of one client.
const THINK: Duration = Duration::from_millis(40);
/// The largest number of requests on one connection.
const REQUESTS: u64 = 100;

/// Routes that hold no worker, each with its weight.
const HEALTHY: [(u64, &str); 12] = [
    (30, "/hello"),
    (15, "/work"),
    (4, "/heavy"),
    (6, "/yielding"),
    (10, "/offload"),
    (5, "/offloaded"),
    (6, "/burst"),
    (8, "/pieces"),
    (12, KNOWN),
    (6, FOREVER),
    (1, PANIC),
    (1, "/allowed"),
];
const KNOWN: &str = "/known/{polls}";
const FOREVER: &str = "/forever";
const PANIC: &str = "/panic";

const PLACES: [&str; 7] = [
    "handler",
    DESTRUCTOR,
    "nested",
    "contained",
    "task",
    "panic",
    "visitor",
];
const DESTRUCTOR: &str = "destructor";
const MANNERS: [&str; 4] = ["sleep", "compute", "wait", "read"];
/// The length of a stall: from six to sixteen budgets.
const SHORTEST: u64 = 60;
const LONGER: u64 = 100;
/// The mean time between two stalls under one watchdog.
const PAUSE: Duration = Duration::from_millis(400);

/// The length of a stall that only a guard can detect, and the time between two. After ten budgets, the guard also
/// reports a worker with an unknown thread.
const UNWATCHED: u64 = 1_300;
const UNWATCHED_PAUSE: Duration = Duration::from_secs(3);

/// The time after which a client cancels its request.
const LEAVES_AFTER: Duration = Duration::from_millis(20);

/// Runs the clients of one round until `until`.
pub(super) async fn run(address: &str, clients: &ClientCounts, seed: u64, until: Instant) {
    let client = |number| Client {
        address,
        clients,
        random: Random::new(seed, number),
        connection: None,
        left: 0,
    };
    let healthy = (0..CLIENTS).map(|number| client(number).behave(until));
    let first = APPS.iter().zip(CLIENTS..);
    let bad = first.map(|(app, number)| client(number).misbehave(app, until));
    let unwatched = client(u64::MAX).block_workers(until);
    tokio::join!(join_all(healthy), join_all(bad), unwatched);
}

struct Client<'l> {
    address: &'l str,
    clients: &'l ClientCounts,
    random: Random,
    connection: Option<Connection>,
    /// The number of requests that are left for this connection.
    left: u64,
}

impl Client<'_> {
    async fn behave(mut self, until: Instant) {
        while Instant::now() < until {
            let app = *self.random.one_of(&APPS);
            let route = self.draw();
            let path = format!("/{app}{route}");
            match route {
                KNOWN => self.ask_for_polls(app).await,
                FOREVER => self.leave(&path).await,
                PANIC => self.be_refused(&path).await,
                _ => self.ask(&path, &path).await,
            }
            sleep(self.random.time(THINK)).await;
        }
    }

    fn draw(&mut self) -> &'static str {
        let all = HEALTHY.iter().map(|(weight, _)| weight).sum();
        let mut drawn = self.random.below(all);
        for (weight, route) in HEALTHY {
            match drawn.checked_sub(weight) {
                Some(rest) => drawn = rest,
                None => return route,
            }
        }
        HEALTHY[0].1
    }

    async fn misbehave(mut self, app: &str, until: Instant) {
        loop {
            sleep(self.random.time(PAUSE)).await;
            if Instant::now() >= until {
                return;
            }
            let place = *self.random.one_of(&PLACES);
            let manner = *self.random.one_of(&MANNERS);
            let millis = SHORTEST + self.random.below(LONGER);
            let path = format!("/{app}/stall/{place}/{manner}?millis={millis}");
            let route = format!("/{app}/stall/{place}/{{manner}}");
            match place {
                DESTRUCTOR => self.leave(&path).await,
                _ => self.ask(&route, &path).await,
            }
            if place == "panic" {
                self.clients.panics.add(&format!("{app}-panic"), 1);
            }
        }
    }

    async fn block_workers(mut self, until: Instant) {
        loop {
            // Before the first one as well: the guard must learn which thread runs which worker.
            sleep(UNWATCHED_PAUSE / 2 + self.random.time(UNWATCHED_PAUSE / 2)).await;
            if Instant::now() >= until {
                return;
            }
            let manner = *self.random.one_of(&MANNERS);
            let path = format!("/exact/stall/unwatched/{manner}?millis={UNWATCHED}");
            self.ask("/exact/stall/unwatched/{manner}", &path).await;
        }
    }

    /// Makes a request, and expects an answer.
    async fn ask(&mut self, route: &str, path: &str) {
        match self.get(path).await {
            Ok(StatusCode::OK) => self.clients.answers.add(route, 1),
            Ok(status) => self.clients.fail(path, status.as_str()),
            Err(error) => self.clients.fail(path, &error.to_string()),
        }
    }

    async fn ask_for_polls(&mut self, app: &str) {
        let polls = 1 + self.random.below(100);
        let (route, path) = (format!("/{app}{KNOWN}"), format!("/{app}/known/{polls}"));
        self.ask(&route, &path).await;
        self.clients.known.add(&format!("{app}-known"), polls);
    }

    /// Makes a request, and expects that the service closes the connection.
    async fn be_refused(&mut self, path: &str) {
        match self.get(path).await {
            Ok(status) => self.clients.fail(path, status.as_str()),
            Err(_) => self.clients.panics.add(path, 1),
        }
    }

    /// Makes a request, and cancels it before its answer.
    async fn leave(&mut self, path: &str) {
        let patience = LEAVES_AFTER + self.random.time(LEAVES_AFTER);
        let answer = timeout(patience, self.get(path)).await;
        self.connection = None;
        match answer {
            Ok(Ok(status)) => self.clients.fail(path, status.as_str()),
            Ok(Err(error)) => self.clients.fail(path, &error.to_string()),
            Err(_) => self.clients.left.set(self.clients.left.get() + 1),
        }
    }

    async fn get(&mut self, path: &str) -> crate::Result<StatusCode> {
        let mut connection = match self.connection.take().filter(|_| self.left > 0) {
            Some(connection) => connection,
            None => {
                self.left = 1 + self.random.below(REQUESTS);
                Connection::open(self.address).await?
            }
        };
        self.left -= 1;
        let (status, _) = connection.get(path).await?;
        self.connection = Some(connection);
        Ok(status)
    }
}

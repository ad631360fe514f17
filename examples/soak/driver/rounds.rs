//! Runs one round after the other: load, then rest.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::child::{Counts, Service};
use super::client_counts::ClientCounts;
use super::http;
use super::load;
use super::polls::Comparison;
use super::process::{Host, Sample};
use super::scrape::{Book, Scrape};
use super::stalls::Stalls;
use crate::Result;
use crate::sabotage::Sabotage;

const SECOND: Duration = Duration::from_secs(1);
/// The checks without a change after which the service counts as at rest. They last longer than the idle time of a
/// thread of its pool.
const STILL: u32 = 16;
const LOOK: Duration = Duration::from_millis(250);
/// The longest wait for rest.
const MOST_LOOKS: u32 = 120;

const PAGES: [&str; 4] = [
    "/debug/shotclock/",
    "/debug/shotclock/state.json",
    "/debug/shotclock/stacks.folded",
    "/debug/shotclock/flight.json",
];

/// The observations of one round.
#[derive(Debug, Default)]
pub(super) struct Round {
    pub(super) seconds: f64,
    pub(super) requests: u64,
    pub(super) polls: u64,
    pub(super) told: u64,
    /// The median under load, and the value at rest.
    pub(super) loaded: Sample,
    pub(super) rest: Sample,
    /// Allocated memory of the service at rest, in bytes.
    pub(super) allocated: u64,
    pub(super) host: Host,
    /// The part of one processor that the service used.
    pub(super) used: f64,
}

/// All observations of one service.
pub(super) struct Soak {
    pub(super) service: Service,
    pub(super) clients: ClientCounts,
    pub(super) stalls: Stalls,
    pub(super) book: Book,
    pub(super) comparison: Comparison,
    pub(super) rounds: Vec<Round>,
    pub(super) warm_up: usize,
    pub(super) pages: u64,
    sabotage: Option<Sabotage>,
    /// The state at the latest rest.
    pub(super) last: Option<(Counts, Scrape)>,
}

impl Soak {
    pub(super) async fn start(rounds: u64, sabotage: Option<Sabotage>) -> Result<Self> {
        Ok(Self {
            service: Service::start(sabotage).await?,
            clients: ClientCounts::default(),
            stalls: Stalls::default(),
            book: Book::default(),
            comparison: Comparison::default(),
            rounds: Vec::new(),
            warm_up: rounds.div_ceil(4) as usize,
            pages: 0,
            sabotage,
            last: None,
        })
    }

    pub(super) async fn round(&mut self, time: Duration, seed: u64) -> Result<()> {
        let begun = Instant::now();
        let before = Host::of(self.service.id)?;
        let clients = std::mem::take(&mut self.clients);
        let address = self.service.address.clone();
        let load = load::run(&address, &clients, seed, begun + time);
        let (samples, ()) = tokio::join!(self.observe(begun + time), load);
        self.clients = clients;
        if self.sabotage == Some(Sabotage::Known) {
            self.clients.known.add("exact-known", 1);
        }
        let seconds = begun.elapsed().as_secs_f64();
        let host = Host::of(self.service.id)?;
        let rest = self.rest().await?;
        let counts = self.last.as_ref().map(|(counts, _)| counts);
        self.rounds.push(Round {
            seconds,
            requests: self.clients.requests(),
            polls: counts.map_or(0, Counts::polls),
            allocated: counts.map_or(0, |counts| counts.allocated),
            told: self.stalls.reported(),
            loaded: median(samples?),
            rest,
            host,
            used: (host.used - before.used) as f64 / 100.0 / seconds,
        });
        if self.rounds.len() == self.warm_up {
            self.book.settle();
        }
        Ok(())
    }

    /// Scrapes the service once a second.
    async fn observe(&mut self, until: Instant) -> Result<Vec<Sample>> {
        let mut samples = Vec::new();
        let mut next = Instant::now() + SECOND;
        let mut host = Host::of(self.service.id)?;
        while next < until {
            sleep_until(next).await;
            let blamed = self.stalls.false_reports.len();
            let before = self.service.count(&mut self.stalls).await?;
            let scrape = self.scrape().await?;
            let after = self.service.count(&mut self.stalls).await?;
            self.comparison.between(&before, &scrape, &after);
            self.look_at_a_page().await?;
            let now = Host::of(self.service.id)?;
            for text in &mut self.stalls.false_reports[blamed..] {
                let stolen = (now.stolen - host.stolen) * 10;
                text.push_str(&format!(
                    "\n(in that second a hypervisor kept processors for {stolen} ms)"
                ));
            }
            host = now;
            samples.push(Sample::of(self.service.id)?);
            next += SECOND;
        }
        Ok(samples)
    }

    async fn scrape(&mut self) -> Result<Scrape> {
        let begun = Instant::now();
        let text = http::get(&self.service.metrics, "/metrics").await?;
        let mut scrape = Scrape::parse(&text);
        if self.sabotage == Some(Sabotage::Back) && self.book.scrapes % 2 == 1 {
            scrape.turn_back();
        }
        self.book.enter(&scrape, begun.elapsed());
        Ok(scrape)
    }

    async fn look_at_a_page(&mut self) -> Result<()> {
        let page = PAGES[self.pages as usize % PAGES.len()];
        self.pages += 1;
        http::get(&self.service.metrics, page).await.map(drop)
    }

    /// Waits until no count changes, and compares the counts.
    async fn rest(&mut self) -> Result<Sample> {
        let mut last = self.glance().await?;
        let mut still = 0;
        for _ in 0..MOST_LOOKS {
            sleep(LOOK).await;
            let now = self.glance().await?;
            still = if now == last { still + 1 } else { 0 };
            last = now;
            if still == STILL {
                break;
            }
        }
        self.service.flush(&mut self.stalls).await?;
        let sample = Sample::of(self.service.id)?;
        let scrape = self.scrape().await?;
        let counts = self.service.count(&mut self.stalls).await?;
        self.comparison.at_rest(&counts, &scrape);
        self.stalls.rest();
        self.last = Some((counts, scrape));
        Ok(sample)
    }

    async fn glance(&mut self) -> Result<(u64, u64, u64)> {
        let polls = self.service.count(&mut self.stalls).await?.polls();
        let Sample { files, threads, .. } = Sample::of(self.service.id)?;
        Ok((polls, files, threads))
    }
}

fn median(samples: Vec<Sample>) -> Sample {
    let of = |number: fn(&Sample) -> u64| {
        let mut numbers: Vec<_> = samples.iter().map(number).collect();
        numbers.sort_unstable();
        numbers.get(numbers.len() / 2).copied().unwrap_or_default()
    };
    Sample {
        rss: of(|sample| sample.rss),
        files: of(|sample| sample.files),
        threads: of(|sample| sample.threads),
    }
}

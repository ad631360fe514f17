//! The service as a process, and what it tells.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use super::stalls::Stalls;
use crate::Result;
use crate::sabotage::Sabotage;
use crate::wire::{Count, News};

/// A service without an answer for this time has ended, or never will.
const MAX_WAIT: Duration = Duration::from_secs(60);

pub(super) struct Service {
    child: Child,
    /// `None` when it is to end.
    orders: Option<ChildStdin>,
    news: UnboundedReceiver<News>,
    pub(super) id: u32,
    pub(super) address: String,
    pub(super) metrics: String,
}

/// What the service counted by itself, at one moment.
pub(super) struct Counts {
    pub(super) by_watch: BTreeMap<String, Count>,
    pub(super) interrupted: u64,
    /// Bytes.
    pub(super) allocated: u64,
}

impl Counts {
    /// How many polls ended.
    pub(super) fn polls(&self) -> u64 {
        self.by_watch.values().map(|count| count.ended).sum()
    }
}

impl Service {
    pub(super) async fn start(sabotage: Option<Sabotage>) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        if let Some(sabotage) = sabotage {
            command.args(["--sabotage", &sabotage.name()]);
        }
        command.arg("serve").kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // glibc has up to 8 heaps for each CPU otherwise. As threads come and go, it takes an hour until each heap
        // has its final size.
        command.env("MALLOC_ARENA_MAX", "2");
        let mut child = command.spawn()?;
        let (Some(orders), Some(output), Some(id)) =
            (child.stdin.take(), child.stdout.take(), child.id())
        else {
            return Err("the service has ended already".into());
        };
        let (tell, mut news) = unbounded_channel();
        // All the time, or the pipe would fill up.
        tokio::spawn(listen(output, tell));
        match timeout(MAX_WAIT, news.recv()).await? {
            Some(News::Serves { service, metrics }) => Ok(Self {
                child,
                orders: Some(orders),
                news,
                id,
                address: service,
                metrics,
            }),
            other => Err(format!("the service does not start: {other:?}").into()),
        }
    }

    /// Has the service count its polls.
    pub(super) async fn count(&mut self, stalls: &mut Stalls) -> Result<Counts> {
        self.order("count\n").await?;
        let mut by_watch = BTreeMap::new();
        loop {
            match self.hear().await? {
                News::Count { watch, count } => drop(by_watch.insert(watch, count)),
                News::Counted {
                    interrupted,
                    allocated,
                } => {
                    return Ok(Counts {
                        by_watch,
                        interrupted,
                        allocated,
                    });
                }
                other => stalls.hear(other),
            }
        }
    }

    /// Has the service wait until everything is reported that will be.
    pub(super) async fn flush(&mut self, stalls: &mut Stalls) -> Result<()> {
        self.order("flush\n").await?;
        loop {
            match self.hear().await? {
                News::Flushed { whole: true } => return Ok(()),
                News::Flushed { whole: false } => return Err("some reports are stuck".into()),
                other => stalls.hear(other),
            }
        }
    }

    /// Whether it ended as it should.
    pub(super) async fn end(&mut self) -> Result<bool> {
        self.orders = None;
        Ok(timeout(MAX_WAIT, self.child.wait()).await??.success())
    }

    async fn order(&mut self, order: &str) -> Result<()> {
        let orders = self.orders.as_mut().ok_or("the service is to end")?;
        orders.write_all(order.as_bytes()).await?;
        Ok(orders.flush().await?)
    }

    async fn hear(&mut self) -> Result<News> {
        let news = timeout(MAX_WAIT, self.news.recv()).await?;
        news.ok_or_else(|| "the service has ended".into())
    }
}

async fn listen(output: ChildStdout, tell: UnboundedSender<News>) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(news) => drop(tell.send(news)),
            Err(error) => eprintln!("soak: the service says {line:?}: {error}"),
        }
    }
}

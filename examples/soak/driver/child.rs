//! Runs the service as a child process, and reads its output.

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

/// A service that gives no answer for this time has ended or hangs.
const MAX_WAIT: Duration = Duration::from_secs(60);

pub(super) struct Service {
    child: Child,
    /// `None` once the service must end.
    commands: Option<ChildStdin>,
    news: UnboundedReceiver<News>,
    pub(super) id: u32,
    pub(super) address: String,
    pub(super) metrics: String,
}

/// The counts of the service, at one moment.
pub(super) struct Counts {
    pub(super) by_watch: BTreeMap<String, Count>,
    pub(super) interrupted: u64,
    /// Allocated memory in bytes.
    pub(super) allocated: u64,
}

impl Counts {
    /// The number of polls that ended.
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
        let (Some(commands), Some(output), Some(id)) =
            (child.stdin.take(), child.stdout.take(), child.id())
        else {
            return Err("the service has ended already".into());
        };
        let (tell, mut news) = unbounded_channel();
        // Reads all the time, because a full pipe would block the service.
        tokio::spawn(listen(output, tell));
        match timeout(MAX_WAIT, news.recv()).await? {
            Some(News::Serves { service, metrics }) => Ok(Self {
                child,
                commands: Some(commands),
                news,
                id,
                address: service,
                metrics,
            }),
            other => Err(format!("the service does not start: {other:?}").into()),
        }
    }

    /// Asks the service for its counts of polls.
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

    /// Waits until the service has delivered all its reports.
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

    /// Returns whether the service ended with success.
    pub(super) async fn end(&mut self) -> Result<bool> {
        self.commands = None;
        Ok(timeout(MAX_WAIT, self.child.wait()).await??.success())
    }

    async fn order(&mut self, order: &str) -> Result<()> {
        let commands = self.commands.as_mut().ok_or("the service is to end")?;
        commands.write_all(order.as_bytes()).await?;
        Ok(commands.flush().await?)
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

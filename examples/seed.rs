//! The loop that hogs its thread, four ways to write it, and four other ways to be selfish.
//!
//! A million squares are summed up, again and again: without a pause, with
//! [`shotclock::yield_every`], with [`shotclock::yield_after`], and on another thread with
//! [`shotclock::offload`]. Then four common mistakes follow, each as a task of its own. Beside each of
//! them runs a heartbeat that wants to wake up every millisecond: how late it was at worst is what
//! everybody else had to bear.
//!
//! The watchdog's warnings go to stderr, one table goes to stdout:
//!
//! ```text
//! cargo run --release --example seed
//! ```

use std::error::Error;
use std::future::Future;
use std::hint::black_box;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use shotclock::coop::{Pace, Rule};
use shotclock::{WatchExt as _, Watchdog};
use tokio::time::sleep;
use tracing::{Instrument as _, info_span};

type BoxError = Box<dyn Error + Send + Sync>;
type Outcome = Result<(), BoxError>;

/// The default, said aloud.
const BUDGET: Duration = Duration::from_millis(10);
const ITERATIONS: u64 = 1_000_000;
/// One round takes less than a millisecond when it is optimized, which no budget would mind. In a
/// debug build fewer rounds do.
const ROUNDS: u64 = if cfg!(debug_assertions) { 10 } else { 100 };
/// These iterations take some ten microseconds, and some hundred in a debug build.
const YIELD_EVERY: u64 = 10_000;
const SLICE: Duration = Duration::from_micros(500);
const PRIMES_BELOW: u64 = if cfg!(debug_assertions) {
    300_000
} else {
    1_000_000
};
const FILE_SIZE: usize = 32 << 20;
const READS: usize = 6;
const HEARTBEAT: Duration = Duration::from_millis(1);

// One thread for everything: where one task hogs it, the heartbeat must wait. With many workers
// another one would take the heartbeat over, and the harm would show only now and then.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    let watchdog = Watchdog::builder().budget(BUDGET).build()?;
    println!("budget of a poll: {BUDGET:?}");

    let file = TempFile::new(FILE_SIZE).await?;
    let server = answer_late()?;
    let mut bench = Bench::new(&watchdog);
    let rows = [
        bench.run("hogging", hogging()).await?,
        bench.run("yield_every", yielding()).await?,
        bench.run("yield_after", yielding_by_time()).await?,
        bench.run("offload", offloaded()).await?,
        bench.run("blocking sleep", blocking_sleep()).await?,
        bench
            .run("blocking file read", blocking_read(file.path.clone()))
            .await?,
        bench
            .run("blocking socket read", blocking_socket(server))
            .await?,
        bench.run("CPU loop", cpu_loop()).await?,
    ];

    // It blocks this thread, which has nothing else to do any more.
    watchdog.flush(Duration::from_secs(5));
    print_table(&rows);
    Ok(())
}

// The loop, four ways -----------------------------------------------------------------------------

/// The black box keeps the compiler from finding the sum without a loop.
fn add_square(sum: u64, i: u64) -> u64 {
    let i = black_box(i);
    sum.wrapping_add(i * i)
}

fn sum_of_squares() -> u64 {
    let mut sum = 0;
    for _ in 0..ROUNDS {
        for i in 0..ITERATIONS {
            sum = add_square(sum, i);
        }
    }
    sum
}

/// There is no `.await` inside: the task keeps the thread until it is done.
async fn hogging() -> Outcome {
    black_box(sum_of_squares());
    Ok(())
}

/// The same loop, which passes the ball.
async fn yielding() -> Outcome {
    sum_in_turns(shotclock::yield_every(YIELD_EVERY)).await
}

/// The same loop, which goes by time and knows nothing of what an iteration costs.
async fn yielding_by_time() -> Outcome {
    sum_in_turns(shotclock::yield_after(SLICE)).await
}

async fn sum_in_turns(mut pace: Pace<impl Rule>) -> Outcome {
    let mut sum = 0;
    for _ in 0..ROUNDS {
        for i in 0..ITERATIONS {
            sum = add_square(sum, i);
            pace.tick().await;
        }
    }
    black_box(sum);
    Ok(())
}

/// The same loop on a thread without other tasks.
async fn offloaded() -> Outcome {
    black_box(shotclock::offload(sum_of_squares).await?);
    Ok(())
}

// Four mistakes ------------------------------------------------------------------------------------

/// Instead of `tokio::time::sleep`.
async fn blocking_sleep() -> Outcome {
    std::thread::sleep(Duration::from_millis(40));
    Ok(())
}

/// Instead of `tokio::fs::read`. More than once, because a file in the page cache is read quickly.
async fn blocking_read(path: PathBuf) -> Outcome {
    for _ in 0..READS {
        black_box(std::fs::read(&path)?);
    }
    Ok(())
}

/// Instead of `tokio::net::TcpStream`: what an HTTP client without async does.
async fn blocking_socket(server: SocketAddr) -> Outcome {
    let mut answer = String::new();
    TcpStream::connect(server)?.read_to_string(&mut answer)?;
    Ok(())
}

/// Work that takes longer than expected.
async fn cpu_loop() -> Outcome {
    let is_prime = |n: &u64| {
        (2..)
            .take_while(|d| d * d <= *n)
            .all(|d| !n.is_multiple_of(d))
    };
    black_box((2..black_box(PRIMES_BELOW)).filter(is_prime).count());
    Ok(())
}

// What they need -----------------------------------------------------------------------------------

/// A file that is gone when this is dropped.
struct TempFile {
    path: PathBuf,
}

impl TempFile {
    async fn new(size: usize) -> io::Result<Self> {
        let name = format!("shotclock-seed-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // Before it is written: a disk that is full leaves half a file.
        let file = Self { path };
        tokio::fs::write(&file.path, vec![b'.'; size]).await?;
        Ok(file)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the file stays behind");
        }
    }
}

/// A server on a thread of its own, which thinks for 30 ms before it answers its only client.
fn answer_late() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || -> io::Result<()> {
        let (mut client, _) = listener.accept()?;
        std::thread::sleep(Duration::from_millis(30));
        client.write_all(b"hello")
    });
    Ok(address)
}

// The measurement ----------------------------------------------------------------------------------

struct Row {
    what: &'static str,
    longest: Duration,
    slow_polls: u64,
    worst_delay: Duration,
    total: Duration,
}

struct Bench<'w> {
    watchdog: &'w Watchdog,
    runs: u64,
}

impl<'w> Bench<'w> {
    fn new(watchdog: &'w Watchdog) -> Self {
        Self { watchdog, runs: 0 }
    }

    /// Runs one way as a task with a watch of its own, beside a heartbeat.
    ///
    /// A warning names the line where `watched` was called, and shows the span around it. The line
    /// of this helper would be of no use. `track_caller`, which an `async fn` cannot have,
    /// makes it the line of the caller.
    #[track_caller]
    fn run<F>(
        &mut self,
        what: &'static str,
        way: F,
    ) -> impl Future<Output = Result<Row, BoxError>> + use<F>
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        self.runs += 1;
        let watch = self.watchdog.watch(what);
        let span = info_span!("request", id = self.runs);
        let task = way.watched(&watch).instrument(span);
        async move {
            let (total, worst_delay) = beside_a_heartbeat(task).await?;
            let stats = watch.stats();
            Ok(Row {
                what,
                longest: stats.longest,
                slow_polls: stats.slow_polls,
                worst_delay,
                total,
            })
        }
    }
}

/// How long the task took, and how late the heartbeat was at worst.
async fn beside_a_heartbeat<F>(task: F) -> Result<(Duration, Duration), BoxError>
where
    F: Future<Output = Outcome> + Send + 'static,
{
    let worst = Arc::new(AtomicU64::new(0));
    let heartbeat = tokio::spawn(beat(Arc::clone(&worst)));
    // A few beats before, and after: the beat that was held up is counted when it comes.
    sleep(HEARTBEAT * 5).await;

    let start = Instant::now();
    tokio::spawn(task).await??;
    let total = start.elapsed();

    sleep(HEARTBEAT * 5).await;
    heartbeat.abort();
    Ok((total, Duration::from_nanos(worst.load(Relaxed))))
}

/// Wants to wake up every millisecond, and notes how late it was at worst, in nanoseconds.
async fn beat(worst: Arc<AtomicU64>) {
    loop {
        let start = Instant::now();
        sleep(HEARTBEAT).await;
        let late = start.elapsed().saturating_sub(HEARTBEAT);
        worst.fetch_max(u64::try_from(late.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }
}

fn print_table(rows: &[Row]) {
    let ms = |duration: Duration| format!("{:.2} ms", duration.as_secs_f64() * 1e3);
    let cells = |row: &Row| {
        [
            row.what.to_owned(),
            ms(row.longest),
            row.slow_polls.to_string(),
            ms(row.worst_delay),
            ms(row.total),
        ]
    };
    let headings = [
        "what",
        "longest poll",
        "slow polls",
        "worst heartbeat delay",
        "total time",
    ];
    let lines = [headings.map(str::to_owned)];
    for [what, longest, slow, delay, total] in lines.into_iter().chain(rows.iter().map(cells)) {
        println!("{what:<20}  {longest:>12}  {slow:>10}  {delay:>21}  {total:>10}");
    }
    println!("tokio's timers tick in milliseconds: 1 to 2 ms of a delay are the timer's own.");
}

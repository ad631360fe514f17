//! Real work on a lane: the SHA-256 of each file under a directory. It has a progress bar, a heartbeat that must not be late,
//! and a way to stop early.
//!
//! ```text
//! cargo run --release --example checksums                 # the toolchain's own files
//! cargo run --release --example checksums -- --for 1.5    # stops after 1.5 seconds
//! cargo run --release --example checksums -- ~/pictures --limit 4 --queue 16
//! ```
//!
//! Ctrl-C stops it too: the futures are dropped, queued closures never run, and running ones see their cancellation.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Parser;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest as _, Sha256};
use shotclock::offload::Cancel;
use shotclock::{Lane, WatchExt as _, Watchdog};
use tokio::time::sleep;

type BoxError = Box<dyn Error + Send + Sync>;

#[derive(Parser)]
#[command(about = "The SHA-256 of every file under a directory, on a lane")]
struct Options {
    /// The directory. The default is that of the Rust toolchain
    directory: Option<PathBuf>,
    /// How many files are read at once
    #[arg(long, default_value_t = 2)]
    limit: usize,
    /// How many may wait for that
    #[arg(long, default_value_t = 64)]
    queue: usize,
    /// Stop after this number of seconds
    #[arg(long = "for", value_name = "SECONDS")]
    seconds: Option<f64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let options = Options::parse();
    let watchdog = Watchdog::builder().build()?;
    let lane = Lane::builder("checksums")
        .limit(options.limit)
        .queue(options.queue);
    let lane = lane.build()?;

    let directory = options.directory.map_or_else(sysroot, Ok)?;
    let shown = directory.display().to_string();
    // A directory is read with blocking calls as well.
    let files = lane.run(move || files_under(&directory)).await??;
    let bytes = files.iter().map(|(_, size)| size).sum();
    println!("{} files of {} MB in {shown}", files.len(), bytes >> 20);

    let bar = progress_bar(bytes)?;
    let heartbeat = tokio::spawn(worst_delay(bar.clone()));
    let started = Instant::now();
    let work = sum_up(&lane, files, &bar, options.limit + options.queue);
    let work = work.watched(&watchdog.watch("checksums"));
    let ended = tokio::select! {
        all = work => Some(all?),
        () = until(options.seconds) => None,
        _ = tokio::signal::ctrl_c() => None,
    };
    // Waits for the running closures, which see their cancellation.
    lane.close().await;
    let (read, took) = (bar.position(), started.elapsed());
    bar.finish_and_clear();

    let rate = read as f64 / took.as_secs_f64() / f64::from(1 << 20);
    match ended {
        Some(sum) => println!("done: {}", hex(&sum)),
        None => println!("stopped in the middle"),
    }
    println!("{} MB in {took:.1?}, {rate:.0} MB/s", read >> 20);
    println!(
        "the heartbeat of 1 ms was at worst {:.1?} late",
        heartbeat.await?
    );
    println!("{}", watchdog.snapshot());
    Ok(())
}

/// One checksum of all of them, in their order. Dropping it cancels what runs and what waits.
async fn sum_up(
    lane: &Lane,
    files: Vec<(PathBuf, u64)>,
    bar: &ProgressBar,
    at_once: usize,
) -> Result<Vec<u8>, BoxError> {
    let one = |(path, _): (PathBuf, u64)| {
        let bar = bar.clone();
        async move {
            let sum = lane.run_cancellable(move |cancel| checksum(&path, &bar, &cancel));
            Ok::<_, BoxError>(sum.await??)
        }
    };
    let sums = stream::iter(files).map(one).buffered(at_once);
    let all = sums.try_fold(Sha256::new(), |all, sum| async move {
        Ok(all.chain_update(sum))
    });
    Ok(all.await?.finalize().to_vec())
}

/// Reads to the end of the file, or until the cancellation.
fn checksum(path: &Path, bar: &ProgressBar, cancel: &Cancel) -> io::Result<Vec<u8>> {
    let (mut file, mut sum) = (File::open(path)?, Sha256::new());
    let mut buffer = vec![0; 1 << 16];
    while !cancel.is_cancelled() {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        sum.update(&buffer[..read]);
        bar.inc(read as u64);
    }
    Ok(sum.finalize().to_vec())
}

fn files_under(directory: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let (mut files, mut directories) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory)? {
            let (entry, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
            if kind.is_dir() {
                directories.push(entry);
            } else if kind.is_file() {
                let size = entry.metadata()?.len();
                files.push((entry, size));
            }
        }
    }
    files.sort();
    Ok(files)
}

fn sysroot() -> io::Result<PathBuf> {
    let printed = Command::new("rustc")
        .args(["--print", "sysroot"])
        .output()?;
    let path = String::from_utf8_lossy(&printed.stdout);
    Ok(PathBuf::from(path.trim()).join("lib"))
}

async fn until(seconds: Option<f64>) {
    match seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
        Some(time) => sleep(time).await,
        None => std::future::pending().await,
    }
}

/// How late a beat was at worst, on the thread where everything is awaited.
async fn worst_delay(bar: ProgressBar) -> Duration {
    const BEAT: Duration = Duration::from_millis(1);
    let mut worst = Duration::ZERO;
    while !bar.is_finished() {
        let start = Instant::now();
        sleep(BEAT).await;
        worst = worst.max(start.elapsed().saturating_sub(BEAT));
    }
    worst
}

/// It draws on stderr, and only on a terminal.
fn progress_bar(bytes: u64) -> Result<ProgressBar, BoxError> {
    let style = "{bar:40} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left";
    let bar = ProgressBar::new(bytes);
    bar.set_style(ProgressStyle::with_template(style)?);
    bar.enable_steady_tick(Duration::from_millis(100));
    Ok(bar)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

//! Prints what a watchdog adds to the process: threads, memory and open files.
//!
//! ```sh
//! cargo run --release --example footprint
//! ```

use std::fs;
use std::time::Duration;

use shotclock::{WatchExt as _, Watchdog};

/// Long enough for the unwind tables of a large program to be read.
const SETTLE: Duration = Duration::from_secs(2);

/// Prints one line of the table.
fn print_footprint(step: &str) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap_or("unknown").trim().to_owned()
    };
    // One entry is the listing itself.
    let files = fs::read_dir("/proc/self/fd").map_or(0, |files| files.count().saturating_sub(1));
    println!(
        "{step:<28} {:>3} threads  {:>8} of heap and stacks  {:>8} in all  {files:>3} files",
        field("Threads:"),
        field("RssAnon:"),
        field("VmRSS:"),
    );
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), shotclock::Error> {
    print_footprint("tokio alone");

    let watchdog = Watchdog::builder()
        .without_tracing()
        .on_slow_poll(|slow| drop(slow.to_string()))
        .build()?;
    tokio::time::sleep(SETTLE).await;
    print_footprint("a watchdog");

    let _guard = watchdog.guard("main", &tokio::runtime::Handle::current());
    tokio::time::sleep(SETTLE).await;
    print_footprint("and a guard");

    for number in 0..900 {
        async {}
            .watched(&watchdog.watch(format!("route {number}")))
            .await;
    }
    print_footprint("and 900 watches on a thread");

    async { std::thread::sleep(Duration::from_millis(100)) }
        .watched(&watchdog.watch("slow"))
        .await;
    watchdog.flush(Duration::from_secs(10));
    print_footprint("and names for one stack");

    let names = fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    let names = names.filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok());
    let mut names: Vec<_> = names.map(|name| name.trim().to_owned()).collect();
    names.sort();
    println!("\nthreads: {}", names.join(", "));
    Ok(())
}

//! The one line that a program needs, and its report of a task that blocks.
//!
//! ```sh
//! cargo run --release --example guard
//! ```

use std::time::Duration;

#[tokio::main(flavor = "multi_thread", worker_threads = 4)]
async fn main() {
    let _guard = shotclock::guard();

    tokio::spawn(serve());
    tokio::time::sleep(Duration::from_secs(2)).await;

    // A service runs on. This ends, and a report is only written once its symbols are read: in a debug
    // build, and from a cold disk, that takes about as long as is left.
    if let Ok(watchdog) = shotclock::Watchdog::global() {
        watchdog.flush(Duration::from_secs(30));
    }
}

/// Nothing is watched here, and there is a mistake.
async fn serve() {
    tokio::time::sleep(Duration::from_secs(1)).await;
    read_the_rates();
}

fn read_the_rates() {
    std::thread::sleep(Duration::from_millis(300));
}

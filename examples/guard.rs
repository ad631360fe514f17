//! The one line that a program needs, and what it prints when somebody blocks.
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
}

/// Nothing is watched here, and there is a mistake.
async fn serve() {
    tokio::time::sleep(Duration::from_secs(1)).await;
    read_the_rates();
}

fn read_the_rates() {
    std::thread::sleep(Duration::from_millis(300));
}

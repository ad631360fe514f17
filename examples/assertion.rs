//! What an audit prints, and what a test says that fails: the second handler holds its worker.
//!
//! ```sh
//! cargo run --example assertion    # ends with the failure, as a test would
//! ```

use std::time::Duration;

use shotclock::assert_poll_budget;
use shotclock::testing::audit;

const BUDGET: Duration = Duration::from_millis(5);

/// Prices a catalogue, and gives the worker back as it goes.
async fn price(items: u64) -> u64 {
    let mut pace = shotclock::yield_after(Duration::from_millis(1));
    let mut sum = 0_u64;
    for item in 0..items {
        sum = (0..50).fold(sum, |sum, n| sum.wrapping_mul(31) ^ (item + n));
        pace.tick().await;
    }
    sum
}

/// Waits for the card terminal, the wrong way.
async fn pay() {
    tokio::task::yield_now().await;
    settle();
    tokio::task::yield_now().await;
}

fn settle() {
    std::thread::sleep(Duration::from_millis(30));
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let audit = audit(price(100_000)).await;
    println!("{audit}\n");

    let price = assert_poll_budget!(BUDGET, price(100_000)).await;
    println!("the price is right: {}\n", price == audit.output);

    assert_poll_budget!(BUDGET, pay(), "payments hold up every other request").await;
}

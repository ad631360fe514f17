//! Three stuck workers, each in its own way, and the reports during the stalls.
//!
//! ```sh
//! cargo run --example stuck
//! ```

use std::hint::black_box;
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use shotclock::{Phase, SlowPoll, WatchExt as _, Watchdog};

const STUCK: Duration = Duration::from_millis(300);

/// The commonest mistake.
#[inline(never)]
fn wait_for_the_other_system() {
    std::thread::sleep(STUCK);
    black_box(());
}

/// Work that should yield, or go elsewhere.
#[inline(never)]
fn price_the_whole_catalogue() -> u64 {
    let start = Instant::now();
    let mut sum = 0u64;
    while start.elapsed() < STUCK {
        sum = (0..10_000u64).fold(sum, |sum, n| black_box(sum.wrapping_mul(31) ^ n));
    }
    sum
}

/// Waits for a lock that another thread holds for long.
#[inline(never)]
fn update_the_stock(stock: &Mutex<u64>) -> u64 {
    let mut stock = stock
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    *stock += 1;
    *stock
}

async fn checkout() {
    wait_for_the_other_system();
}

async fn pricing() -> u64 {
    price_the_whole_catalogue()
}

async fn stock_keeping(stock: Arc<Mutex<u64>>) -> u64 {
    update_the_stock(&stock)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 4)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let watchdog = Watchdog::builder()
        .budget(Duration::from_millis(10))
        .without_tracing()
        .on_slow_poll(|slow: &SlowPoll| {
            // A stall has reports at doubling times. Here, two are enough.
            if slow.phase == Phase::Finished || slow.elapsed > Duration::from_millis(150) {
                println!("{slow}\n");
            }
        })
        .build()?;
    println!("{}\n", watchdog.capabilities());

    let stock = Arc::new(Mutex::new(0));
    let held = Arc::clone(&stock);
    let taken = Arc::new(Barrier::new(2));
    let seen = Arc::clone(&taken);
    let holder = std::thread::spawn(move || {
        let _held = held.lock();
        seen.wait();
        std::thread::sleep(STUCK);
    });
    taken.wait();
    let tasks = [
        tokio::spawn(checkout().watched(&watchdog.watch("checkout"))),
        tokio::spawn(
            async {
                let _ = pricing().await;
            }
            .watched(&watchdog.watch("pricing")),
        ),
        tokio::spawn(
            async {
                let _ = stock_keeping(stock).await;
            }
            .watched(&watchdog.watch("stock")),
        ),
    ];
    for task in tasks {
        task.await?;
    }
    drop(holder.join());
    // The reports come before the statistics.
    watchdog.flush(Duration::from_secs(10));
    println!("{}", watchdog.snapshot());
    Ok(())
}

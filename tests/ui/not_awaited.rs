#![deny(unused_must_use)]

use std::time::Duration;

async fn handler() {}

fn main() {
    shotclock::assert_poll_budget!(Duration::from_millis(5), handler());
}

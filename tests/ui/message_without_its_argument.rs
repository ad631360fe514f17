use std::time::Duration;

async fn handler() {}

fn main() {
    drop(shotclock::assert_poll_budget!(Duration::from_millis(5), handler(), "of {}"));
}

use std::time::Duration;

async fn handler() {}

fn main() {
    drop(shotclock::assert_poll_budget!(handler(), Duration::from_millis(5)));
}

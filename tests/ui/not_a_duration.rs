async fn handler() {}

fn main() {
    drop(shotclock::assert_poll_budget!("5ms", handler()));
    drop(shotclock::assert_poll_budget!(5, handler()));
}

fn main() {
    shotclock::assert_poll_budget!(std::time::Duration::from_millis(5));
}

fn main() {
    shotclock::assert_poll_budget!();
}

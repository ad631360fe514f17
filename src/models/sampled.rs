//! The sums of sampled polls against their owner.

use std::sync::Arc;

use loom::thread;

use super::Model;
use crate::sync::fault::Fault::{Forged, Relaxed, Skipped, Stale};
use crate::watch::Sampled;

/// The version while no thread writes, after two samples.
const SECOND_VERSION: u64 = 4;

/// A sample of `second` nanoseconds replaces one of 50 ns. One poll counts after each.
fn replace_while_it_is_read(second: u64) -> Model {
    // The elapsed and the self times that a reader may see.
    let moments = [(50, 40), (50 + second, 70)];
    Model::new(move || {
        let sampled = Arc::new(Sampled::new(0));
        sampled.renew(50, 40);
        sampled.count();
        let reader = {
            let sampled = Arc::clone(&sampled);
            thread::spawn(move || {
                if let Some(now) = sampled.try_sums() {
                    assert!(moments.contains(&now), "torn: {now:?}");
                }
            })
        };
        sampled.renew(second, 30);
        sampled.count();
        reader.join().unwrap();
        assert_eq!(sampled.try_sums(), Some(moments[1]));
    })
}

#[test]
fn sums_while_a_sample_of_another_cell_comes_are_of_one_moment() {
    // Without the odd version a reader takes what is half written for a moment of its own. If the version is even
    // while the owner writes, a reader that begins then does.
    replace_while_it_is_read(110)
        .holds()
        .fails_with(Skipped, "renew-odd", "torn")
        .fails_with(Forged(SECOND_VERSION), "renew-odd", "torn")
        .fails_with(Skipped, "renew-fence", "torn")
        .fails_with(Relaxed, "renew-done", "torn")
        .fails_with(Relaxed, "sums-version", "torn")
        .fails_with(Skipped, "sums-fence", "torn")
        .fails_with(Stale, "sums-again", "torn");
}

/// Both samples are of one cell. What counts for the second must not count for the first.
#[test]
fn sums_while_a_sample_of_the_same_cell_comes_are_of_one_moment() {
    replace_while_it_is_read(60)
        .holds()
        .fails_with(Skipped, "renew-fence", "torn")
        .fails_with(Stale, "sums-again", "torn");
}

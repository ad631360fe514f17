//! The targets over the committed corpus, and over bytes from proptest.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

/// The files in the corpus of a target. The package has none.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    if !fuzz.exists() {
        return Vec::new();
    }
    let files = fs::read_dir(fuzz.join("corpus").join(target)).unwrap();
    let corpus: Vec<_> = files
        .map(|file| fs::read(file.unwrap().path()).unwrap())
        .collect();
    assert!(!corpus.is_empty());
    corpus
}

macro_rules! targets {
    ($($target:ident),* $(,)?) => {$(
        mod $target {
            use super::*;

            #[test]
            fn holds_for_the_corpus() {
                corpus(stringify!($target)).iter().for_each(|data| super::super::$target(data));
            }

            proptest! {
                #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]
                #[test]
                fn holds_for_any_bytes(data in proptest::collection::vec(any::<u8>(), 0..512)) {
                    super::super::$target(&data);
                }
            }
        }
    )*};
}

targets!(
    culprits, elf, groups, http, metrics, page, procfs, settings, stack
);

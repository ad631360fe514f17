//! Fuzz targets: functions that take any bytes, and panic where the crate does something wrong.
//!
//! Each target in `fuzz/` calls one of them. The plain tests run the same functions over the committed corpus and over
//! bytes from proptest. So a fault that a fuzzer found once shows without a fuzzer.
//!
//! All targets stand here, under one condition (in `lib.rs`). The items that they need from elsewhere are `pub(crate)`.

#![allow(
    clippy::missing_panics_doc,
    reason = "a target panics where it finds something"
)]

mod culprits;
mod elf;
mod exposition;
mod groups;
mod http;
mod input;
mod metrics;
mod page;
mod polls;
mod procfs;
mod settings;
mod stack;
#[cfg(test)]
mod tests;

pub use culprits::culprits;
pub use elf::elf;
pub use groups::groups;
pub use http::http;
use input::Input;
pub use metrics::metrics;
pub use page::page;
pub use procfs::procfs;
pub use settings::settings;
pub use stack::stack;

/// Asserts that a table of text has a line for each row and one for the headings, and is aligned.
fn assert_is_table(table: &str, rows: usize) {
    let lines: Vec<_> = table.split('\n').collect();
    assert_eq!(lines.len(), rows + 1, "{table}");
    let width = |line: &&str| line.chars().count();
    let widths: std::collections::BTreeSet<_> = lines.iter().map(width).collect();
    assert_eq!(widths.len(), 1, "{table}");
    let is_plain = |c: char| c == '\n' || !c.is_control();
    assert!(table.chars().all(is_plain), "{table:?}");
}

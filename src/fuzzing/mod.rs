//! What is fuzzed: functions that take any bytes, and panic where something is not as it should be.
//!
//! The targets in `fuzz/` call them one to one. The same functions run over the committed corpus, and over
//! bytes that proptest makes up, in the plain tests: so what was found once shows without a fuzzer.
//!
//! Here are what the targets share and those that need only what the crate can see; the others stand
//! in their own modules, under the same name as this one.

#![allow(
    clippy::missing_panics_doc,
    reason = "a target panics where it finds something"
)]

mod exposition;
mod groups;
mod input;
mod page;
mod polls;
mod procfs;
mod settings;
#[cfg(test)]
mod tests;

pub(crate) use exposition::{Series, read as read_exposition};
pub(crate) use input::Input;

pub use crate::prometheus::fuzzing::{http, metrics};
mod culprits;
pub use crate::sentinel::fuzzing::{elf, stack};
pub use culprits::culprits;
pub use groups::groups;
pub use page::page;
pub use procfs::procfs;
pub use settings::settings;

/// A table of text must have a line for each row and one for the headings, and be aligned.
pub(crate) fn assert_is_table(table: &str, rows: usize) {
    let lines: Vec<_> = table.split('\n').collect();
    assert_eq!(lines.len(), rows + 1, "{table}");
    let width = |line: &&str| line.chars().count();
    let widths: std::collections::BTreeSet<_> = lines.iter().map(width).collect();
    assert_eq!(widths.len(), 1, "{table}");
    let is_plain = |c: char| c == '\n' || !c.is_control();
    assert!(table.chars().all(is_plain), "{table:?}");
}
